//! This host's own data, from the agent to everywhere it must arrive.

use std::io::Write as _;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use serde_json::{Value, json};
use testkit::eventually;
use tests_e2e::Sightline;
use tests_e2e::client::{Client, Socket};
use tests_e2e::receiver::Receiver;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn this_hosts_data_reaches_queries_search_live_streams_and_a_webhook() {
    let mut sightline = Sightline::start(&[
        ("SIGHTLINE_AGENT_INTERVAL", "1s"),
        ("SIGHTLINE_AGENT_PROCESS_INTERVAL", "1s"),
        ("SIGHTLINE_IDLE_AFTER", "5s"),
        ("SIGHTLINE_OFFLINE_AFTER", "10s"),
    ])
    .await;
    std::fs::write(sightline.demo_log(), "").unwrap();
    sightline.start_agent().await;
    let admin = sightline.admin().await;

    memory_is_what_the_kernel_says(&admin).await;
    let host = the_host_is_online(&admin).await;
    this_process_is_in_the_snapshot(&admin, &host).await;
    a_line_reaches_search_a_live_stream_and_a_webhook(&sightline, &admin, &host).await;
    a_metric_rule_fires_and_resolves_nothing_else(&admin).await;

    let stopped = sightline.stop("agent");
    assert!(stopped.is_clean(), "{stopped:?}");
    eventually("the host goes offline", PATIENCE, async || {
        let status = admin.get(&format!("/api/v1/resources/{host}")).await?["status"].clone();
        if status == "offline" { Ok(()) } else { Err(format!("it is {status}")) }
    })
    .await;
}

async fn memory_is_what_the_kernel_says(admin: &Client) {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:")).unwrap();
    let kibibytes: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    for query in [r#"system_memory_total{source="physical"}"#, r#"system.memory.total{source="physical"}"#] {
        let value = eventually("the memory's size is known", PATIENCE, async || {
            admin.query(query).await?.first().map(|(_, value)| *value).ok_or_else(|| format!("{query} finds nothing"))
        })
        .await;
        assert!((value - kibibytes * 1024.0).abs() < 0.5, "{query} says {value}, /proc/meminfo {kibibytes} KiB");
    }
    let series = admin.get("/prometheus/api/v1/series?match[]=system_cpu_usage_percent").await.unwrap();
    assert!(series["data"].as_array().is_some_and(|series| !series.is_empty()), "{series}");
}

async fn the_host_is_online(admin: &Client) -> String {
    eventually("the host is a resource and online", PATIENCE, async || {
        let page = admin.get("/api/v1/resources?match=%7Bkind%3D%22host%22%7D").await?;
        let host = &page["items"][0];
        if host["status"] == "online" { Ok(host["id"].as_str().unwrap().to_owned()) } else { Err(page.to_string()) }
    })
    .await
}

async fn this_process_is_in_the_snapshot(admin: &Client, host: &str) {
    eventually("this process is in the snapshot", PATIENCE, async || {
        let snapshot = admin.get(&format!("/api/v1/resources/{host}/processes")).await?;
        let pids: Vec<u64> = snapshot["items"].as_array().unwrap().iter().filter_map(|p| p["pid"].as_u64()).collect();
        if pids.contains(&u64::from(std::process::id())) { Ok(()) } else { Err(format!("{} processes", pids.len())) }
    })
    .await;
}

async fn a_line_reaches_search_a_live_stream_and_a_webhook(sightline: &Sightline, admin: &Client, host: &str) {
    let receiver = Receiver::start().await;
    admin.post("/api/v1/receivers", &json!({"name": "ops", "webhook": {"url": receiver.url}})).await;
    admin
        .post(
            "/api/v1/rules",
            &json!({"name": "oom", "level": "error", "log": {"contains": "Out of memory"}, "match": "{}", "receivers": ["ops"]}),
        )
        .await;
    let mut live = admin.live("/api/v1/ws/logs").await;
    frame(&mut live, |frame| frame["type"] == "hello").await;
    // A rule is in force within a second of its creation: a line that comes too early would be missed rightly, so each
    // attempt writes a line of its own and is timed by itself.
    let (line, took) = eventually("a line reaches the webhook", PATIENCE, async || {
        let line = format!("Out of memory: killed process {}", tests_e2e::otlp::now());
        let written = Instant::now();
        append(sightline, &line);
        let deadline = written + Duration::from_secs(3);
        while Instant::now() < deadline {
            if let Some(call) = receiver.calls().iter().find(|call| call.body.to_string().contains(&line)) {
                return Ok((line, call.at - written));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err("no call came".to_owned())
    })
    .await;
    println!("line to webhook took {took:?}");
    let seen = frame(&mut live, |frame| frame["body"] == line.as_str()).await;
    assert_eq!(seen["resource_id"], host);
    eventually("search finds the line", PATIENCE, async || {
        let page = admin.get(&format!("/api/v1/logs?contains={}", tests_e2e::client::encode(&line))).await?;
        let items = page["items"].as_array().unwrap();
        if items.len() == 1 && items[0]["resource_id"] == host { Ok(()) } else { Err(page.to_string()) }
    })
    .await;
    eventually("the ledger shows the delivery", PATIENCE, async || {
        let page = admin.get("/api/v1/deliveries").await?;
        let delivery = &page["items"][0];
        if delivery["state"] == "delivered" && delivery["attempts"][0]["http_status"] == 204 {
            Ok(())
        } else {
            Err(page.to_string())
        }
    })
    .await;
}

async fn a_metric_rule_fires_and_resolves_nothing_else(admin: &Client) {
    let rule = json!({
        "name": "memory exists", "level": "info", "metric": "system.memory.total", "match": "{source=\"physical\"}",
        "condition": "> 0", "for": "2s",
    });
    admin.post("/api/v1/rules", &rule).await;
    let alert = eventually("the metric rule fires", PATIENCE, async || {
        let page = admin.get("/api/v1/alerts?state=firing").await?;
        let alerts = page["items"].as_array().unwrap();
        alerts.iter().find(|alert| alert["rule_name"] == "memory exists").cloned().ok_or_else(|| page.to_string())
    })
    .await;
    assert_eq!(alert["delivery"], "none");
    assert!(alert["value"].as_f64().is_some_and(|value| value > 0.0), "{alert}");
}

fn append(sightline: &Sightline, line: &str) {
    let mut file = std::fs::OpenOptions::new().append(true).open(sightline.demo_log()).unwrap();
    writeln!(file, "{line}").unwrap();
}

/// The next frame that passes.
async fn frame(live: &mut Socket, wanted: impl Fn(&Value) -> bool) -> Value {
    let search = async {
        while let Some(message) = live.next().await {
            if let Ok(frame) = serde_json::from_str::<Value>(message.unwrap().to_text().unwrap_or_default())
                && wanted(&frame)
            {
                return frame;
            }
        }
        panic!("the live stream ended");
    };
    tokio::time::timeout(PATIENCE, search).await.expect("the frame did not come")
}
