use std::process::{Child, Command};
use std::time::Duration;
use crate::support::{Observer, wait_until_ready};
fn vm(dir: &str) -> Child {
    Command::new("/var/cache/sightline/servers/debian-12-x86_64/victoria-metrics/usr/bin/victoria-metrics").args([&format!("-storageDataPath={dir}"), "-httpListenAddr=127.0.0.1:28428", "-retentionPeriod=100y", "-search.latencyOffset=0s", "-search.disableCache", "-dedup.minScrapeInterval=1ms", "-selfScrapeInterval=0", "-memory.allowedPercent=5"])
        .stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
}
async fn count(name: &str) -> usize {
    let http = reqwest::Client::new();
    let _ = http.get("http://127.0.0.1:28428/internal/force_flush").send().await;
    let Ok(r) = http.post("http://127.0.0.1:28428/api/v1/export").form(&[("match[]", name)]).send().await else { return 0 };
    r.text().await.unwrap().lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["values"].as_array().unwrap().len()).sum()
}
#[tokio::test(flavor = "multi_thread")]
async fn kill() {
    let dir = format!("/tmp/vmkill-{}", std::process::id());
    let mut child = vm(&dir);
    let observer = Observer::start().await;
    let writer = observer.writer("http://127.0.0.1:28428").await;
    wait_until_ready(&writer).await;
    let mut n = 0u32;
    for round in 0..3 {
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_secs(if round == 0 { 50 } else { 12 }) {
            observer.publish(&format!("k{n}"), &observer.envelope("killed", f64::from(n), 3000 - u64::from(n))).await;
            n += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        observer.wait_for_acknowledged(u64::from(n)).await;
        child.kill().unwrap(); child.wait().unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        if round == 2 { writer.clone().stop().await; }
        child = vm(&dir);
        tokio::time::sleep(Duration::from_millis(700)).await;
        println!("round {round}: published {n}, store has {} right after its start", count("killed").await);
        let second = if round == 2 { Some(observer.writer("http://127.0.0.1:28428").await) } else { None };
        testkit::eventually("all back", Duration::from_secs(30), async || { let c = count("killed").await; if c == n as usize { Ok(()) } else { Err(c) } }).await;
        println!("round {round}: all {n} back; marks: {}", count("{__name__=~\"sightline_metric_writer.*\"}").await);
        if let Some(second) = second { second.stop().await; }
    }
    child.kill().unwrap(); child.wait().unwrap();
    observer.stop().await;
    std::fs::remove_dir_all(dir).unwrap();
}
