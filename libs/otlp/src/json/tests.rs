use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{HistogramDataPoint, NumberDataPoint};
use prost::Message as _;

use super::*;

fn read(document: &str, signal: Signal) -> Result<FromJson, String> {
    from_json(document.as_bytes(), signal, 1 << 20).map_err(|error| error.to_string())
}

fn record(members: &str) -> Result<LogRecord, String> {
    let document = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{{members}}}]}}]}}]}}"#);
    let request = ExportLogsServiceRequest::decode(&read(&document, Signal::Logs)?.request[..]).unwrap();
    Ok(request.resource_logs[0].scope_logs[0].log_records[0].clone())
}

fn data(members: &str) -> Result<Data, String> {
    let document = format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"m",{members}}}]}}]}}]}}"#);
    let request = ExportMetricsServiceRequest::decode(&read(&document, Signal::Metrics)?.request[..]).unwrap();
    Ok(request.resource_metrics[0].scope_metrics[0].metrics[0].data.clone().unwrap())
}

fn point(members: &str) -> Result<NumberDataPoint, String> {
    match data(&format!(r#""gauge":{{"dataPoints":[{{{members}}}]}}"#))? {
        Data::Gauge(gauge) => Ok(gauge.data_points[0].clone()),
        other => panic!("{other:?}"),
    }
}

fn histogram(members: &str) -> Result<HistogramDataPoint, String> {
    match data(&format!(r#""histogram":{{"aggregationTemporality":2,"dataPoints":[{{{members}}}]}}"#))? {
        Data::Histogram(histogram) => Ok(histogram.data_points[0].clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_number_may_be_written_in_each_way_that_json_protobuf_allows() {
    for (members, value) in [
        (r#""asDouble": "NaN""#, Number::AsDouble(f64::NAN)),
        (r#""asDouble": "Infinity""#, Number::AsDouble(f64::INFINITY)),
        (r#""asDouble": "-Infinity""#, Number::AsDouble(f64::NEG_INFINITY)),
        (r#""asDouble": "1.5""#, Number::AsDouble(1.5)),
        (r#""asDouble": 0.1"#, Number::AsDouble(0.1)),
        (r#""asDouble": 5"#, Number::AsDouble(5.0)),
        (r#""asDouble": -1e-7"#, Number::AsDouble(-1e-7)),
        (r#""asInt": 5.0"#, Number::AsInt(5)),
        (r#""asInt": "5""#, Number::AsInt(5)),
        (r#""asInt": "-9223372036854775808""#, Number::AsInt(i64::MIN)),
        (r#""asInt": 9007199254740993"#, Number::AsInt(9_007_199_254_740_993)),
        (r#""asInt": 1e3"#, Number::AsInt(1000)),
        (r#""as_int": 7"#, Number::AsInt(7)),
        (r#""asInt": null, "asDouble": 2"#, Number::AsDouble(2.0)),
    ] {
        let read = point(members).unwrap().value.unwrap();
        assert_eq!(format!("{read:?}"), format!("{value:?}"), "{members}");
    }
    let point = point(r#""timeUnixNano": 1.7e18, "flags": "1", "startTimeUnixNano": "18446744073709551615""#).unwrap();
    assert_eq!((point.time_unix_nano, point.flags), (1_700_000_000_000_000_000, 1));
    assert_eq!(point.start_time_unix_nano, u64::MAX);
}

#[test]
fn histograms_take_numbers_as_text() {
    let point = histogram(
        r#""count": "3", "sum": "3.5", "bucketCounts": ["1", 2], "explicitBounds": ["1"], "exemplars": null, "max": "NaN""#,
    )
    .unwrap();
    assert_eq!(
        (point.count, point.sum, point.bucket_counts, point.explicit_bounds),
        (3, Some(3.5), vec![1, 2], vec![1.0])
    );
    assert!(point.max.unwrap().is_nan());
}

#[test]
fn what_cannot_be_read_names_its_field() {
    let point_at = "resourceMetrics[0].scopeMetrics[0].metrics[0].gauge.dataPoints[0]";
    for (members, place, problem) in [
        (r#""asDouble": "oops""#, ".asDouble", "must be a number"),
        (r#""asDouble": "inf""#, ".asDouble", "must be a number"),
        (r#""asDouble": "1.5 ""#, ".asDouble", "must be a number"),
        (r#""asDouble": 1e999"#, ".asDouble", "must be a number"),
        (r#""asDouble": true"#, ".asDouble", "expected a number, found true or false"),
        (r#""asInt": 5.5"#, ".asInt", "whole number of 64 bits"),
        (r#""asInt": "9223372036854775808""#, ".asInt", "whole number of 64 bits"),
        (r#""timeUnixNano": -1"#, ".timeUnixNano", "not negative"),
        (r#""flags": 4294967296"#, ".flags", "whole number of 32 bits"),
        (r#""attributes": {}"#, ".attributes", "expected a list, found an object"),
        (r#""attributes": [null]"#, ".attributes[0]", "expected an object, found null"),
        (r#""attributes": [{"key":"a"},{"key":7}]"#, ".attributes[1].key", "expected a string, found a number"),
        (r#""asInt": 1, "asDouble": 1"#, ".asDouble", "one of its values only"),
        (r#""exemplars": [{"traceId": "xyz"}]"#, ".exemplars[0].traceId", "hexadecimal"),
    ] {
        let error = point(members).unwrap_err();
        assert!(error.starts_with(&format!("{point_at}{place}: ")) && error.contains(problem), "{members}: {error}");
    }
    let error = data(r#""sum":{"aggregationTemporality":"AGGREGATION_TEMPORALITY_CUMULATIVE"}"#).unwrap_err();
    assert!(error.contains("sum.aggregationTemporality: enums are numbers"), "{error}");
    let error = data(r#""gauge":{"dataPoints":"x"}"#).unwrap_err();
    assert!(error.contains("gauge.dataPoints: expected a list, found a string"), "{error}");
    assert!(data(r#""gauge":{},"sum":{}"#).unwrap_err().contains("Metric can have one of its values only"));
}

#[test]
fn records_take_null_empty_and_both_spellings() {
    for members in [
        r#""body": {"kvlistValue": {}}"#,
        r#""body": {"arrayValue": {}}"#,
        r#""body": {"array_value": {"values": []}}"#,
        r#""body": {}"#,
        r#""body": null"#,
        r#""attributes": [{"key": "a", "value": {"arrayValue": {}}}, {"key": "b"}, {}]"#,
        r#""attributes": null, "traceId": null, "spanId": null, "severityText": null, "severityNumber": null"#,
        r#""droppedAttributesCount": "0", "flags": "1""#,
        r#""of_tomorrow": {"deep": [1, "x", null, {"y": false}]}"#,
        "",
    ] {
        record(members).unwrap();
    }
    let record = record(
        r#""severityNumber": "9", "observed_time_unix_nano": "5", "traceId": "0AFF", "spanId": "", "flags": 257,
        "body": {"bytesValue": "_wA"}, "attributes": [{"key": "d", "value": {"doubleValue": "NaN"}},
        {"key": "i", "value": {"intValue": -1}}, {"key": "\u00fc\n", "value": {"stringValue": "a\u0000b"}}]"#,
    )
    .unwrap();
    assert_eq!((record.severity_number, record.observed_time_unix_nano, record.flags), (9, 5, 257));
    assert_eq!((&record.trace_id[..], &record.span_id[..]), (&[0x0a, 0xff][..], &[][..]));
    assert_eq!(record.body.unwrap().value, Some(Value::BytesValue(vec![0xff, 0])));
    assert!(
        matches!(record.attributes[0].value.as_ref().unwrap().value, Some(Value::DoubleValue(nan)) if nan.is_nan())
    );
    assert_eq!(record.attributes[1].value.as_ref().unwrap().value, Some(Value::IntValue(-1)));
    assert_eq!(record.attributes[2].key, "ü\n");
}

#[test]
fn levels_above_may_be_null_or_missing() {
    for document in [
        "{}",
        r#"{"resourceLogs": null}"#,
        r#"{"resourceLogs": [{"scopeLogs": null, "schemaUrl": null}]}"#,
        r#" { "resource_logs" : [ ] } "#,
    ] {
        assert_eq!(read(document, Signal::Logs).unwrap().unknown, Unknown::default(), "{document}");
    }
    for document in ["", "null", "[]", "{", "{}x", r#"{"resourceLogs": [}"#, "\u{feff}{}"] {
        assert!(read(document, Signal::Logs).is_err(), "{document}");
    }
}

#[test]
fn what_otlp_does_not_know_is_passed_over_and_said() {
    let unknown = read(r#"{"resourceSpans": [], "resourceMetrics": [{"x": 1}]}"#, Signal::Metrics).unwrap().unknown;
    assert_eq!(
        (unknown.count, &unknown.first[..]),
        (2, &["resourceSpans".to_owned(), "resourceMetrics[0].x".into()][..])
    );

    // Each kind is named once, wherever it stands; three are enough to see what is wrong.
    let point = r#"{"labels": {"a": [1]}, "timeunixnano": 5, "asInt": 1}"#;
    let metric = format!(r#"{{"name": "m", "guage": {{}}, "gauge": {{"dataPoints": [{point},{point}]}}}}"#);
    let scope = format!(r#"{{"scopeMetrics": [{{"metrics": [{metric},{metric}], "y": null}}]}}"#);
    let unknown = read(&format!(r#"{{"resourceMetrics": [{scope}]}}"#), Signal::Metrics).unwrap().unknown;
    let at = "resourceMetrics[0].scopeMetrics[0].metrics[0]";
    let named = ["guage", "gauge.dataPoints[0].labels", "gauge.dataPoints[0].timeunixnano"];
    assert_eq!((unknown.count, unknown.first), (11, named.map(|field| format!("{at}.{field}")).to_vec()));

    let many = format!("{{{}}}", vec![format!("\"{}\": 0", "k".repeat(9_000)); 1_000].join(","));
    let unknown = read(&many, Signal::Logs).unwrap().unknown;
    assert!(unknown.count == 1_000 && unknown.first.len() == 1 && unknown.first[0].len() <= 64, "{unknown:?}");
}

#[test]
fn exponential_histograms_are_read_to_be_refused_with_a_reason() {
    let data = data(
        r#""exponentialHistogram": {"aggregationTemporality": 2, "dataPoints": [{"scale": -3, "zeroCount": "2",
        "positive": {"offset": -1, "bucketCounts": ["1", 300]}}]}"#,
    );
    let Ok(Data::ExponentialHistogram(histogram)) = data else { panic!("{data:?}") };
    let point = &histogram.data_points[0];
    let positive = point.positive.as_ref().unwrap();
    assert_eq!((point.scale, positive.offset, &positive.bucket_counts[..]), (-3, -1, &[1, 300][..]));
}

#[test]
fn the_result_is_bounded_and_no_more_than_four_times_the_document() {
    let records = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{}{{}}]}}]}}]}}"#, "{},".repeat(50_000));
    let bounds = format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"histogram":{{"dataPoints":[{{"explicitBounds":[{}0]}}]}}}}]}}]}}]}}"#,
        "0,".repeat(50_000)
    );
    for (document, signal) in [(records, Signal::Logs), (bounds, Signal::Metrics)] {
        let read = from_json(document.as_bytes(), signal, 1 << 20).unwrap();
        assert!(read.request.len() <= 4 * document.len(), "{} of {}", read.request.len(), document.len());
        assert_eq!(from_json(document.as_bytes(), signal, 1_000).unwrap_err(), BadJson::TooLarge);
    }
}

#[test]
fn nesting_has_an_end() {
    let body = |levels: usize| {
        let open = r#"{"arrayValue":{"values":["#.repeat(levels);
        record(&format!(r#""body":{open}{{}}{}"#, "]}}".repeat(levels)))
    };
    body(10).unwrap();
    assert!(body(60).unwrap_err().ends_with("values are nested too deeply"));
    assert!(body(100_000).is_err());
}
