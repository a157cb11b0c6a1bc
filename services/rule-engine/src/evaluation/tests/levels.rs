//! Everything that fires, and saying it again.

use super::*;

#[test]
fn what_fires_is_known_with_the_transition_that_said_so_also_after_a_restart() {
    let rules = set(1, &[metric_rule(1, 1, "> 90", 0), metric_rule(2, 1, "> 50", 0)]);
    let mut shard = Shard::new(&rules);
    for (second, host, value) in [(1, "a", 95.0), (2, "b", 60.0), (3, "c", 1.0), (4, "a", 60.0)] {
        shard.apply(&Event::Metrics(second, load(host, second, Some(value))));
    }
    let fired = |said: &[Decision], of: &Evaluation| {
        let mut open: BTreeMap<(Uuid, u64), Id> = BTreeMap::new();
        for decision in said {
            match decision.state {
                crate::transition::State::Firing => open.insert((decision.rule.id, decision.subject), decision.id()),
                crate::transition::State::Resolved => open.remove(&(decision.rule.id, decision.subject)),
            };
        }
        let firing: Vec<_> = of.firing().map(|f| ((f.rule, f.subject), f.transition)).collect();
        assert_eq!(firing, open.into_iter().collect::<Vec<_>>());
        firing.len()
    };
    assert_eq!(fired(&shard.said, &shard.metrics), 2);
    let mut kept = Kept::default();
    kept.keep(&mut shard.metrics);
    let restored = kept.restore(Signal::Metrics, &rules).evaluation;
    assert_eq!(fired(&shard.said, &restored), 2);

    for evaluation in [&shard.metrics, &restored] {
        for key in evaluation.firing_behind(None, 10) {
            let again = evaluation.again(key.0, key.1).unwrap();
            let first = shard.said.iter().find(|decision| decision.id() == again.id()).expect("the same id");
            let text = |decision: &Decision| {
                let mut message = decision.message("00/metrics", 1, 0);
                message.value = 0.0;
                message
            };
            assert_eq!(text(&again), text(first));
        }
    }
}

#[test]
fn repeating_goes_round() {
    let mut shard = Shard::new(&set(1, &[metric_rule(1, 1, "> 90", 0)]));
    for host in 0..10 {
        shard.apply(&Event::Metrics(1, load(&format!("h{host}"), 1, Some(95.0))));
    }
    let all = shard.metrics.firing_behind(None, 100);
    assert_eq!(all.len(), 10);
    assert_eq!(shard.metrics.firing_behind(Some(all[3]), 4), all[4..8]);
    assert_eq!(shard.metrics.firing_behind(Some(all[7]), 4), [all[8], all[9], all[0], all[1]]);
    assert_eq!(shard.metrics.firing_behind(Some(all[9]), 100), all);
}
