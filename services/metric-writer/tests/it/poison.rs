//! Envelopes that can never be stored.

use bus::{From, Stream};

use crate::front::{Front, Writes};
use crate::support::Observer;

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_be_stored_is_a_dead_letter_and_its_neighbours_are_stored() {
    let observer = Observer::start().await;
    let front = Front::start().await;
    front.writes(Writes::Refused("poison"));
    let mut dead = observer.bus.follow(Stream::Dead, From::New).await;
    for n in 0..9_u32 {
        let envelope = observer.envelope("good", f64::from(n), 100 - u64::from(n));
        observer.publish(&format!("good-{n}"), &envelope).await;
        if n == 4 {
            observer.publish("refused", &observer.envelope("poison", 1.0, 50)).await;
            observer.publish("nonsense", &observer.envelope_of(vec![0x0a, 0x7f])).await;
            let unknown = observer.envelope("good", 0.0, 1).encode("unknown").unwrap();
            observer.send(unknown.header("Sl-Schema", "otlp.metrics.v9")).await;
        }
    }
    // All wait, so that they are written together.
    let writer = observer.writer(&front.url()).await;
    let expected: Vec<f64> = (0..9_u32).map(f64::from).collect();
    observer.wait_for("good", &expected).await;
    let mut reasons = Vec::new();
    for _ in 0..3 {
        let letter = tokio::time::timeout(crate::support::PATIENCE, dead.next()).await.expect("a dead letter");
        let header = |name| letter.header(name).unwrap_or_default().to_owned();
        reasons.push((header("Sl-Dead-Id"), header("Sl-Dead-Reason")));
    }
    reasons.sort();
    let [nonsense, refused, unknown] = reasons.as_slice() else { panic!("{reasons:?}") };
    assert!(nonsense.0 == "nonsense" && nonsense.1.contains("not OTLP metrics"), "{nonsense:?}");
    assert!(refused.0 == "refused" && refused.1.contains("400: cannot take that"), "{refused:?}");
    assert!(unknown.0 == "unknown" && unknown.1.contains("otlp.metrics.v9"), "{unknown:?}");
    observer.wait_for_acknowledged(12).await;
    assert_eq!(observer.account().await.dead, 3);
    assert_eq!(observer.stored("poison").await, [0.0; 0]);
    writer.stop().await;
    observer.stop().await;
}
