//! Live streams pass through and say farewell.

use futures::{SinkExt as _, StreamExt as _};
use reqwest::{Method, StatusCode};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::support::{Gateway, json};

#[tokio::test]
async fn a_stream_is_told_when_the_gateway_goes_away() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let behind = tokio::task::JoinSet::from_iter([async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        socket.send(Message::text("x".repeat(70_000))).await.unwrap();
        // Until the other side is gone.
        while socket.next().await.is_some_and(|message| message.is_ok()) {}
    }]);
    let gateway = Gateway::start_with(&[("--ws-fanout-url", &url)]).await;
    let address = format!("ws://{}/api/v1/ws/metrics?name=x", gateway.address);
    let (mut socket, _) = tokio_tungstenite::connect_async(address).await.unwrap();
    let first = socket.next().await.unwrap().unwrap();
    assert_eq!(first.into_text().unwrap().len(), 70_000);
    let stopping = gateway.process.clone();
    let (farewell, ()) = tokio::join!(socket.next(), stopping.stop());
    let Some(Ok(Message::Close(Some(frame)))) = farewell else { panic!("{farewell:?}") };
    assert_eq!(frame.code, CloseCode::Away);
    drop(behind);
}

#[tokio::test]
async fn what_is_no_websocket_is_told_so() {
    let gateway = Gateway::start().await;
    let ask = async |method| json(gateway.request(method, "/api/v1/ws/logs").send().await.unwrap()).await;
    let (status, body) = ask(Method::GET).await;
    assert_eq!((status, body["code"].as_str()), (StatusCode::BAD_REQUEST, Some("websocket_expected")));
    let response = gateway.request(Method::OPTIONS, "/api/v1/ws/logs").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert!(response.headers()["allow"].to_str().unwrap().contains("GET"));
    gateway.process.stop().await;
}
