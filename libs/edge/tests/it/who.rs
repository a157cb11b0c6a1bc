//! Who a request is from.

use crate::support::Port;

async fn asks(port: &Port, headers: &str) -> String {
    let mut client = port.connect().await;
    client.write(format!("GET /who HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n").as_bytes()).await;
    let answer = client.rest().await;
    answer.rsplit("\r\n").next().unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_and_nobody_else() {
    let trusting = Port::open(&["--trusted-proxies", "127.0.0.0/8,10.0.0.0/8"]).await;
    assert_eq!(asks(&trusting, "x-forwarded-for: 1.1.1.1, 203.0.113.7, 10.1.1.1\r\n").await, "203.0.113.7");
    assert_eq!(asks(&trusting, "").await, "127.0.0.1");
    let distrusting = Port::open(&["--trusted-proxies", "10.0.0.0/8"]).await;
    assert_eq!(asks(&distrusting, "x-forwarded-for: 203.0.113.7\r\n").await, "127.0.0.1");
    let standard = Port::open(&["--trusted-proxies", "127.0.0.0/8", "--forwarded-header", "forwarded"]).await;
    assert_eq!(asks(&standard, "x-forwarded-for: 1.1.1.1\r\nforwarded: for=203.0.113.7\r\n").await, "203.0.113.7");
}
