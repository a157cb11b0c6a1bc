//! A storm to the one receiver that everybody names.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::receiver::{Answer, Receiver};
use crate::support::{Service, notification};

#[tokio::test]
async fn a_page_that_is_taken_is_over_whoever_is_at_its_receivers_row() {
    let said = Arc::new(Notify::new());
    let mut receiver = Receiver::start([Answer::Status(200), Answer::When(Arc::clone(&said))]).await;
    let mut service = Service::start().await;
    service.create("ops", &receiver.url()).await;
    for alert in ["first", "second"] {
        let told = notification(&service.tenant, alert, "firing", &["ops"]);
        service.publish(&told).await;
        receiver.request().await;
        if alert == "first" {
            assert_eq!(service.event().await.state, "delivered");
        }
    }
    // As another replica that is slow, or the end of another attempt.
    let mut held = service.pool.begin().await.unwrap();
    sqlx::query("select from receiver_state for update").execute(&mut *held).await.unwrap();
    said.notify_one();
    assert_eq!(service.event().await.state, "delivered");
    held.commit().await.unwrap();
    service.process.stop().await;
}
