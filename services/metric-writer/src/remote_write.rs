//! The bodies of remote write requests, version 1.0: each a snappy block of `prometheus.WriteRequest`.
//!
//! Written field by field, so that labels are copied once, from the shared series into the request.

use bytes::Bytes;
use prost::encoding::{WireType, double, encode_key, encode_varint, encoded_len_varint, int64};
use series::Series;

use crate::samples::{Sorted, Value};

// Field numbers of prometheus/prompb/remote.proto and types.proto.
const WRITE_REQUEST_TIMESERIES: u32 = 1;
const TIME_SERIES_SAMPLES: u32 = 2;
const SAMPLE_VALUE: u32 = 1;
const SAMPLE_TIMESTAMP: u32 = 2;

/// VictoriaMetrics is cheapest with thousands of series a request.
const ENOUGH_SERIES: usize = 10_000;

/// Requests that hold all samples, one entry a series, its samples in order of time; made one at a time.
pub(crate) struct Requests<'a> {
    samples: &'a Sorted<'a>,
    most_bytes: usize,
    next: usize,
    request: Vec<u8>,
}

impl<'a> Requests<'a> {
    /// Requests of about `most_bytes` at most, unless one series alone has more.
    pub(crate) fn new(samples: &'a Sorted<'a>, most_bytes: usize) -> Self {
        Self { samples, most_bytes, next: 0, request: Vec::new() }
    }
}

impl Iterator for Requests<'_> {
    type Item = Result<Bytes, snap::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.request.clear();
        let end = self.next + ENOUGH_SERIES;
        while self.next < end
            && let Some((series, values)) = self.samples.get(self.next)
        {
            let before = self.request.len();
            entry(series, values, &mut self.request);
            if before > 0 && self.request.len() > self.most_bytes {
                self.request.truncate(before);
                break;
            }
            self.next += 1;
        }
        if self.request.is_empty() {
            return None;
        }
        Some(snap::raw::Encoder::new().compress_vec(&self.request).map(Bytes::from))
    }
}

fn entry(series: &Series, values: &[Value], request: &mut Vec<u8>) {
    let samples: usize = values.iter().map(|value| field_length(sample_length(value))).sum();
    encode_key(WRITE_REQUEST_TIMESERIES, WireType::LengthDelimited, request);
    encode_varint((series.encoded_len() + samples) as u64, request);
    series.encoded().into_iter().for_each(|piece| request.extend_from_slice(piece));
    for value in values {
        encode_key(TIME_SERIES_SAMPLES, WireType::LengthDelimited, request);
        encode_varint(sample_length(value) as u64, request);
        double::encode(SAMPLE_VALUE, &value.value, request);
        int64::encode(SAMPLE_TIMESTAMP, &value.time_ms, request);
    }
}

fn sample_length(value: &Value) -> usize {
    double::encoded_len(SAMPLE_VALUE, &value.value) + int64::encoded_len(SAMPLE_TIMESTAMP, &value.time_ms)
}

/// With a key of one byte before it.
fn field_length(content: usize) -> usize {
    1 + encoded_len_varint(content as u64) + content
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prost::Message;
    use series::Type;

    use super::*;
    use crate::samples::Samples;

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

    fn series(name: &str) -> Arc<Series> {
        Arc::new(Series::new(Type::Gauge, [("__name__", name), ("tenant", "t")]))
    }

    fn written(samples: &Samples) -> Vec<WriteRequest> {
        requests(samples, 8 << 20).into_iter().map(|(request, _)| request).collect()
    }

    /// With their lengths.
    fn requests(samples: &Samples, most_bytes: usize) -> Vec<(WriteRequest, usize)> {
        let read = |body: Result<Bytes, snap::Error>| {
            let bytes = snap::raw::Decoder::new().decompress_vec(&body.expect("compresses")).expect("a snappy block");
            (WriteRequest::decode(bytes.as_slice()).expect("a write request"), bytes.len())
        };
        Requests::new(&samples.sorted(), most_bytes).map(read).collect()
    }

    #[test]
    fn a_request_is_what_prometheus_defines() {
        let mut samples = Samples::default();
        samples.push(&series("up"), 20, 0.0);
        samples.push(&series("down"), -5, -1.5);
        samples.push(&series("up"), 10, 7.0);
        let requests = written(&samples);
        let label = |name: &str, value: &str| Label { name: name.to_owned(), value: value.to_owned() };
        let entry = |name: &str, samples: &[(i64, f64)]| TimeSeries {
            labels: vec![label("__name__", name), label("tenant", "t")],
            samples: samples.iter().map(|(timestamp, value)| Sample { value: *value, timestamp: *timestamp }).collect(),
        };
        let timeseries = vec![entry("up", &[(10, 7.0), (20, 0.0)]), entry("down", &[(-5, -1.5)])];
        assert_eq!(requests, [WriteRequest { timeseries }]);
    }

    #[test]
    fn many_series_are_several_requests() {
        let mut samples = Samples::default();
        for number in 0..=2 * ENOUGH_SERIES {
            samples.push(&series(&format!("metric_{number}")), 1, 1.0);
        }
        let counts: Vec<usize> = written(&samples).iter().map(|request| request.timeseries.len()).collect();
        assert_eq!(counts, [ENOUGH_SERIES, ENOUGH_SERIES, 1]);
        assert!(written(&Samples::default()).is_empty());
    }

    #[test]
    fn a_request_has_no_more_bytes_than_it_may() {
        let mut samples = Samples::default();
        for number in 0..1_000 {
            samples.push(&series(&format!("metric_{number}_{}", "x".repeat(number % 300))), 1, 1.0);
        }
        let requests = requests(&samples, 4_096);
        assert!(requests.len() > 40 && requests.iter().all(|(_, bytes)| *bytes <= 4_096));
        assert_eq!(requests.iter().map(|(request, _)| request.timeseries.len()).sum::<usize>(), 1_000);
    }

    #[test]
    fn the_stale_marker_keeps_its_bits() {
        let stale = f64::from_bits(0x7ff0_0000_0000_0002);
        let mut samples = Samples::default();
        samples.push(&series("up"), 1, stale);
        assert_eq!(written(&samples)[0].timeseries[0].samples[0].value.to_bits(), stale.to_bits());
    }
}
