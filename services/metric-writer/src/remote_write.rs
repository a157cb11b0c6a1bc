//! The body of a remote write request, version 1.0: a snappy block of `prometheus.WriteRequest`.
//!
//! Written field by field, so that labels are copied once, from the shared series into the request.

use std::sync::Arc;

use prost::encoding::{WireType, double, encode_key, encode_varint, int64, string};
use series::Series;

use crate::intake::Value;

// Field numbers of prometheus/prompb/remote.proto and types.proto.
const WRITE_REQUEST_TIMESERIES: u32 = 1;
const TIME_SERIES_LABELS: u32 = 1;
const TIME_SERIES_SAMPLES: u32 = 2;
const LABEL_NAME: u32 = 1;
const LABEL_VALUE: u32 = 2;
const SAMPLE_VALUE: u32 = 1;
const SAMPLE_TIMESTAMP: u32 = 2;

/// A request with one entry a series, its samples in order of time. The order of `values` changes nothing in it.
pub(crate) fn body<'a>(values: impl Iterator<Item = &'a Value>) -> Result<Vec<u8>, snap::Error> {
    let mut sorted: Vec<&Value> = values.collect();
    sorted.sort_by(|a, b| {
        let series = a.series.hash.cmp(&b.series.hash).then_with(|| order(&a.series, &b.series));
        series.then(a.time_ms.cmp(&b.time_ms)).then(a.value.total_cmp(&b.value))
    });
    let mut request = Vec::with_capacity(sorted.len() * 64);
    let (mut entry, mut part) = (Vec::new(), Vec::new());
    for group in sorted.chunk_by(|a, b| same(&a.series, &b.series)) {
        entry.clear();
        for (name, value) in group.iter().take(1).flat_map(|first| &first.series.labels) {
            part.clear();
            string::encode(LABEL_NAME, name, &mut part);
            string::encode(LABEL_VALUE, value, &mut part);
            nested(TIME_SERIES_LABELS, &part, &mut entry);
        }
        for sample in group {
            part.clear();
            double::encode(SAMPLE_VALUE, &sample.value, &mut part);
            int64::encode(SAMPLE_TIMESTAMP, &sample.time_ms, &mut part);
            nested(TIME_SERIES_SAMPLES, &part, &mut entry);
        }
        nested(WRITE_REQUEST_TIMESERIES, &entry, &mut request);
    }
    snap::raw::Encoder::new().compress_vec(&request)
}

fn nested(field: u32, content: &[u8], out: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

fn same(a: &Arc<Series>, b: &Arc<Series>) -> bool {
    Arc::ptr_eq(a, b) || (a.hash == b.hash && a.labels == b.labels)
}

fn order(a: &Arc<Series>, b: &Arc<Series>) -> std::cmp::Ordering {
    if Arc::ptr_eq(a, b) { std::cmp::Ordering::Equal } else { a.labels.cmp(&b.labels) }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use series::Type;

    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        timeseries: Vec<TimeSeries>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")]
        samples: Vec<Sample>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Label {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(string, tag = "2")]
        value: String,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Sample {
        #[prost(double, tag = "1")]
        value: f64,
        #[prost(int64, tag = "2")]
        timestamp: i64,
    }

    fn series(name: &str, hash: u64) -> Arc<Series> {
        let labels = vec![("__name__".to_owned(), name.to_owned()), ("tenant".to_owned(), "t".to_owned())];
        Arc::new(Series { name: name.to_owned(), labels, hash, resource_id: String::new(), kind: Type::Gauge })
    }

    fn written(values: &[Value]) -> WriteRequest {
        let body = body(values.iter()).expect("compresses");
        let bytes = snap::raw::Decoder::new().decompress_vec(&body).expect("a snappy block");
        WriteRequest::decode(bytes.as_slice()).expect("a write request")
    }

    #[test]
    fn samples_are_grouped_by_series_and_ordered_by_time() {
        let (up, down) = (series("up", 2), series("down", 1));
        let value = |series: &Arc<Series>, time_ms, value| Value { series: Arc::clone(series), time_ms, value };
        // Another reader's copy of a series is the same series; an equal hash alone is not.
        let values = [
            value(&up, 20, 0.0),
            value(&down, 10, -1.5),
            value(&series("up", 2), 10, 7.0),
            value(&series("other", 1), 5, 1.0),
        ];
        let request = written(&values);
        let read: Vec<_> = request
            .timeseries
            .iter()
            .map(|entry| {
                let samples: Vec<_> = entry.samples.iter().map(|sample| (sample.timestamp, sample.value)).collect();
                (entry.labels[0].value.as_str(), entry.labels.len(), samples)
            })
            .collect();
        let expected =
            [("down", 2, vec![(10, -1.5)]), ("other", 2, vec![(5, 1.0)]), ("up", 2, vec![(10, 7.0), (20, 0.0)])];
        assert_eq!(read, expected);
        let mut reversed = values.to_vec();
        reversed.reverse();
        assert_eq!(written(&reversed), request);
    }

    #[test]
    fn the_stale_marker_keeps_its_bits() {
        let stale = f64::from_bits(0x7ff0_0000_0000_0002);
        let request = written(&[Value { series: series("up", 1), time_ms: 1, value: stale }]);
        assert_eq!(request.timeseries[0].samples[0].value.to_bits(), stale.to_bits());
    }
}
