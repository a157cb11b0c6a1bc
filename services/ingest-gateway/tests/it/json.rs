//! OTLP as JSON: what is taken is stored, what is not is named; never a success with nothing behind it.

use bus::Stream;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use serde_json::{Value, json};

use crate::support::{Gateway, logs_in, metrics_in, now};

async fn post(gateway: &Gateway, path: &str, body: &str) -> (u16, Value) {
    let request = reqwest::Client::new().post(gateway.url(path)).header("content-type", "application/json");
    let answer = request.body(body.to_owned()).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/json");
    (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap())
}

fn with_metric(members: &str) -> String {
    format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"m",{members}}}]}}]}}]}}"#)
}

#[tokio::test]
async fn metrics_pass_in_every_spelling_or_are_counted_or_named() {
    let gateway = Gateway::start().await;
    let mut tap = gateway.tap(Stream::Metrics).await;
    let gauge = |point: &str| with_metric(&format!(r#""gauge":{{"dataPoints":[{{{point}}}]}}"#));
    for point in [
        r#""asDouble":"Infinity""#,
        r#""asDouble":"1.5""#,
        r#""asInt":5.0"#,
        r#""asInt":"5","attributes":null,"exemplars":null"#,
        r#""asInt":5,"attributes":[{"key":"a","value":{"arrayValue":{}}}]"#,
        r#""flags":"1""#,
        &format!(r#""as_int":1,"time_unix_nano":"{}""#, now()),
    ] {
        assert_eq!(post(&gateway, "/v1/metrics", &gauge(point)).await, (200, json!({})), "{point}");
        assert_eq!(tap.next().await.items, 1, "{point}");
    }
    for (point, reason) in [
        (r#""asDouble":"NaN""#.to_owned(), "NaN"),
        (String::new(), "no value"),
        (r#""asInt":1,"timeUnixNano":18446744073709551615"#.to_owned(), "ahead"),
        (format!(r#""asInt":1,"timeUnixNano":{}"#, now() / 1_000_000), "before what is kept"),
    ] {
        let (status, answer) = post(&gateway, "/v1/metrics", &gauge(&point)).await;
        let partial = &answer["partialSuccess"];
        assert_eq!((status, &partial["rejectedDataPoints"]), (200, &json!("1")), "{point}");
        assert!(partial["errorMessage"].as_str().unwrap().contains(reason), "{point}: {answer}");
    }
    let histogram = with_metric(
        r#""histogram":{"aggregationTemporality":2,"dataPoints":[
        {"count":"3","sum":"3.5","bucketCounts":["1","2"],"explicitBounds":["1"]}]}"#,
    );
    assert_eq!(post(&gateway, "/v1/metrics", &histogram).await, (200, json!({})));
    let passed = metrics_in(&tap.next().await);
    let Some(Data::Histogram(read)) = &passed[0].scope_metrics[0].metrics[0].data else { panic!("{passed:?}") };
    assert_eq!((read.data_points[0].sum, &read.data_points[0].bucket_counts[..]), (Some(3.5), &[1, 2][..]));

    let named = with_metric(r#""sum":{"aggregationTemporality":"AGGREGATION_TEMPORALITY_CUMULATIVE"}"#);
    let (status, answer) = post(&gateway, "/v1/metrics", &named).await;
    let message = answer["message"].as_str().unwrap();
    assert!(status == 400 && message.contains("metrics[0].sum.aggregationTemporality: enums are numbers"), "{answer}");
}

#[tokio::test]
async fn logs_pass_in_every_spelling_or_are_named() {
    let gateway = Gateway::start().await;
    let mut tap = gateway.tap(Stream::Logs).await;
    let record = |members: &str| format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{{members}}}]}}]}}]}}"#);
    for members in [
        r#""body":{"kvlistValue":{}}"#,
        r#""severityNumber":"9","flags":"1","droppedAttributesCount":"0""#,
        r#""attributes":[{"key":"a","value":{"doubleValue":"NaN"}}],"traceId":null,"severityText":null"#,
        r#""traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"0102030405060708""#,
    ] {
        assert_eq!(post(&gateway, "/v1/logs", &record(members)).await, (200, json!({})), "{members}");
        assert_eq!(logs_in(&tap.next().await)[0].scope_logs[0].log_records.len(), 1, "{members}");
    }
    for (document, place) in [
        (record(r#""traceId":"AQID=""#), "logRecords[0].traceId"),
        (record(r#""body":"text""#), "logRecords[0].body"),
        (r#"{"resourceLogs": 7}"#.to_owned(), "resourceLogs"),
        ("[]".to_owned(), "the document"),
    ] {
        let (status, answer) = post(&gateway, "/v1/logs", &document).await;
        assert!(status == 400 && answer["message"].as_str().unwrap().contains(place), "{document}: {answer}");
    }
    for empty in ["{}", r#"{"resourceLogs":null}"#, r#"{"resource_logs":[{"scope_logs":null}]}"#] {
        assert_eq!(post(&gateway, "/v1/logs", empty).await, (200, json!({})), "{empty}");
    }
}

#[tokio::test]
async fn fields_that_nobody_knows_are_named_beside_what_was_taken() {
    let gateway = Gateway::start().await;
    let (mut metrics, mut logs) = (gateway.tap(Stream::Metrics).await, gateway.tap(Stream::Logs).await);
    let good = r#"{"name":"good","gauge":{"dataPoints":[{"asInt":1,"timeunixnano":"5","labels":{"a":"b"}}]}}"#;
    let misspelled = r#"{"name":"bad","guage":{"dataPoints":[{"asInt":1}]}}"#;
    let scope = |metrics: &str| format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{metrics}]}}]}}]}}"#);
    let record = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"message":"x"}]}]}]}"#;
    for (path, document, rejected, named) in [
        ("/v1/metrics", scope(good), Value::Null, &["dataPoints[0].timeunixnano", "dataPoints[0].labels"][..]),
        ("/v1/metrics", scope(&format!("{good},{misspelled}")), json!("1"), &["metrics[1].guage", "no known kind"]),
        ("/v1/logs", record.to_owned(), Value::Null, &["resourceLogs[0].scopeLogs[0].logRecords[0].message"]),
        (
            "/v1/logs",
            r#"{"resourceLog":[{}]}"#.to_owned(),
            Value::Null,
            &["nothing was in the request but", "resourceLog"],
        ),
        ("/v1/metrics", record.to_owned(), Value::Null, &["belongs to /v1/logs"]),
        ("/v1/logs", scope(good).replace("resourceM", "resource_m"), Value::Null, &["belongs to /v1/metrics"]),
    ] {
        let (status, answer) = post(&gateway, path, &document).await;
        let partial = &answer["partialSuccess"];
        let field = if path == "/v1/logs" { "rejectedLogRecords" } else { "rejectedDataPoints" };
        assert_eq!((status, &partial[field]), (200, &rejected), "{document}: {answer}");
        let message = partial["errorMessage"].as_str().unwrap_or_default();
        assert!(named.iter().all(|name| message.contains(name)), "{document}: {answer}");
    }
    assert_eq!((metrics.next().await.items, metrics.next().await.items, logs.next().await.items), (1, 1, 1));
    let counted =
        |signal: &str| gateway.metric(&format!("sightline_ingest_gateway_unknown_fields_total{{signal=\"{signal}\"}}"));
    assert_eq!((counted("metrics"), counted("logs")), (6, 3));
    let refused = "sightline_ingest_gateway_items_refused_total{signal=\"metrics\",reason=\"no_value\"}";
    assert_eq!(gateway.metric(refused), 1);
}
