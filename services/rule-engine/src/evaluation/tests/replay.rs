//! Whoever takes over decides what an undisturbed run decides.

use proptest::prelude::*;

use super::*;

/// What one step of a lane's history may be.
#[derive(Debug, Clone)]
enum Step {
    /// Host, seconds behind the receipt (negative: ahead), value.
    Sample(u8, i64, Option<bool>),
    /// Host, seconds behind the receipt, text.
    Line(u8, i64, u8),
    /// Nothing but time.
    Wait(u64),
    /// Which rules are there, and as which of their versions.
    Rules([u8; 4]),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Now, a little late, hours late, a little ahead, a year ahead.
    let lag = prop_oneof![6 => 0..4_i64, 1 => 1_000..9_000_i64, 1 => -500..0_i64, 1 => Just(-40_000_000_i64)];
    let wait = prop_oneof![4 => 1..30_u64, 1 => 3_000..8_000_u64];
    let step = prop_oneof![
        6 => (0..3_u8, lag.clone(), prop_oneof![4 => any::<bool>().prop_map(Some), 1 => Just(None)])
            .prop_map(|(host, lag, hot)| Step::Sample(host, lag, hot)),
        4 => (0..3_u8, lag, 0..3_u8).prop_map(|(host, lag, text)| Step::Line(host, lag, text)),
        3 => wait.prop_map(Step::Wait),
        1 => any::<[u8; 4]>().prop_map(Step::Rules),
    ];
    prop::collection::vec(step, 1..80)
}

/// Rules as they are edited: each is missing, as it was, shown otherwise, or deciding otherwise.
struct Editor {
    revision: i64,
    /// For each rule: which way it decides, and since which version.
    deciding: [(u8, u64); 4],
}

impl Editor {
    fn new() -> Self {
        Self { revision: 0, deciding: [(0, 0); 4] }
    }

    fn edit(&mut self, choice: [u8; 4]) -> Arc<RuleSet> {
        self.revision += 1;
        let version = self.revision.unsigned_abs();
        let mut all = Vec::new();
        for (number, choice) in choice.into_iter().enumerate() {
            let way = [0, 1, 1, 2][usize::from(choice % 4)];
            if self.deciding[number].0 != way {
                self.deciding[number] = (way, version);
            }
            if way > 0 {
                let document = Self::document(number, way);
                let name = if choice % 4 == 2 { "shown".to_owned() } else { document.name.clone() };
                let number = number as u128 + 1;
                let evaluated = self.deciding[usize::try_from(number - 1).unwrap()].1;
                all.push(rule(number, version, evaluated, RuleDocument { name, ..document }));
            }
        }
        set(self.revision, &all)
    }

    fn document(number: usize, way: u8) -> RuleDocument {
        let is_first = way == 1;
        match number {
            0 => metric_document(1, if is_first { "> 90" } else { "> 10" }, 7),
            1 => metric_document(2, "<= 50", if is_first { 0 } else { 3 }),
            2 => log_rule(3, "oom", "{}", if is_first { 5 } else { 9 }).document.clone(),
            _ => log_rule(4, "panic", r#"{host_name="h1"}"#, if is_first { 20 } else { 5 }).document.clone(),
        }
    }
}

/// The rules at first, and the events of both lanes.
fn events(first: [u8; 4], steps: &[Step]) -> (Arc<RuleSet>, Vec<Event>) {
    let mut now: u64 = 50_000_000;
    let mut editor = Editor::new();
    let first = editor.edit(first);
    let event = |step: &Step| {
        now += 1;
        let at = |lag: i64| u64::try_from(i64::try_from(now).unwrap() - lag).unwrap();
        match step {
            Step::Sample(host, lag, hot) => {
                let value = hot.map(|hot| if hot { 95.0 } else { 50.0 });
                Event::Metrics(now, load(&format!("h{host}"), at(*lag), value))
            }
            Step::Line(host, lag, text) => {
                let text = ["oom", "fine", "panic oom"][usize::from(*text)];
                Event::Logs(now, line(&format!("h{host}"), at(*lag), text))
            }
            Step::Wait(seconds) => {
                now += seconds;
                Event::Tick(now)
            }
            Step::Rules(choice) => Event::Rules(editor.edit(*choice)),
        }
    };
    (first, steps.iter().map(event).collect())
}

/// Everything about a decision that others see.
type Seen = (Id, u64, Option<Id>, bool, u64, &'static str);

fn seen(said: &[Decision]) -> Vec<Seen> {
    said.iter().map(|d| (d.id(), d.order, d.previous, d.facts.late, d.rule.version, d.reason)).collect()
}

/// The part of the history that a lane reads.
fn of_lane(signal: Signal, events: &[Event]) -> Vec<Event> {
    let is_read = |event: &&Event| match event {
        Event::Metrics(..) => signal == Signal::Metrics,
        Event::Logs(..) => signal == Signal::Logs,
        Event::Tick(_) | Event::Rules(_) => true,
    };
    events.iter().filter(is_read).cloned().collect()
}

fn run(evaluation: &mut Evaluation, events: &[Event]) -> Vec<Decision> {
    let mut said = Vec::new();
    for event in events {
        match event {
            Event::Metrics(second, body) | Event::Logs(second, body) => {
                evaluation.message("acme", body, 1, START + second * SECOND, &mut said).unwrap();
            }
            Event::Tick(second) => evaluation.pass_time(START + second * SECOND, &mut said),
            Event::Rules(set) => {
                for rule in evaluation.switch(Arc::clone(set), &mut said) {
                    said.extend(evaluation.some_again(rule, 0, usize::MAX).0);
                }
            }
        }
    }
    said
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whoever_takes_over_from_a_snapshot_decides_what_an_undisturbed_run_decides(
        steps in steps(),
        places in prop::collection::vec(0..1_000_usize, 4),
        first in any::<[u8; 4]>(),
    ) {
        let (first, events) = events(first, &steps);
        for signal in Signal::ALL {
            let events = of_lane(signal, &events);
            let new = || Evaluation::new(signal, Arc::clone(&first), limits(), 0);
            let undisturbed = seen(&run(&mut new(), &events));
            let mut places: Vec<usize> = places.iter().map(|place| place % (events.len() + 1)).collect();
            places.sort_unstable();

            // Owners take over from each other's snapshots, which are written over one another.
            let (mut kept, mut owner, mut said, mut read) = (Kept::default(), new(), Vec::new(), 0);
            for place in places {
                said.extend(run(&mut owner, &events[read..place]));
                read = place;
                kept.keep(&mut owner);
                let rules = Arc::clone(owner.rules());
                // What it still said before it was killed, the next says as well.
                let unsaved = seen(&run(&mut owner, &events[place..(place + 5).min(events.len())]));
                owner = kept.restore(signal, &rules).evaluation;
                let mut other = kept.restore(signal, &rules).evaluation;
                let again = seen(&run(&mut other, &events[place..(place + 5).min(events.len())]));
                prop_assert_eq!(unsaved, again);
            }
            said.extend(run(&mut owner, &events[read..]));
            prop_assert_eq!(seen(&said), undisturbed);
        }
    }

    #[test]
    fn the_lanes_of_a_shard_decide_the_same_however_they_are_interleaved(
        steps in steps(),
        first in any::<[u8; 4]>(),
    ) {
        let (first, events) = events(first, &steps);
        let mut shard = Shard::new(&first);
        events.iter().for_each(|event| shard.apply(event));
        let is_log = |decision: &&Decision| decision.rule.kind == "log";
        let (logs, metrics): (Vec<&Decision>, Vec<&Decision>) = shard.said.iter().partition(is_log);
        let mut apart = Vec::new();
        for signal in [Signal::Logs, Signal::Metrics] {
            let mut evaluation = Evaluation::new(signal, Arc::clone(&first), limits(), 0);
            apart.extend(run(&mut evaluation, &of_lane(signal, &events)));
        }
        let together: Vec<Decision> = logs.into_iter().chain(metrics).cloned().collect();
        prop_assert_eq!(seen(&apart), seen(&together));
    }

    #[test]
    fn states_of_one_rule_and_subject_alternate_and_name_each_other(steps in steps(), first in any::<[u8; 4]>()) {
        let (first, events) = events(first, &steps);
        let mut shard = Shard::new(&first);
        events.iter().for_each(|event| shard.apply(event));
        let mut last: BTreeMap<(Uuid, u64, u64), (bool, bool, Id)> = BTreeMap::new();
        let mut ids = std::collections::BTreeSet::new();
        for decision in &shard.said {
            let fires = decision.state == crate::transition::State::Firing;
            let key = (decision.rule.id, decision.rule.evaluated_version, decision.subject);
            if decision.again {
                let said = last.get(&key).map(|(fires, _, id)| (*fires, *id));
                prop_assert_eq!((said, fires), (Some((true, decision.id())), true), "what still fires is said again");
                continue;
            }
            prop_assert!(ids.insert(decision.id()), "no id stands for two decisions");
            if let Some((fired, late, id)) = last.insert(key, (fires, decision.facts.late, decision.id())) {
                // Firing twice in a row: the first was told to nobody, the second is.
                prop_assert!(fired != fires || (late && !decision.facts.late && fires), "{:?}", shard.told());
                prop_assert!(decision.previous == Some(id) || decision.previous.is_none());
            }
        }
    }
}

#[test]
fn a_snapshot_writes_only_the_parts_that_changed() {
    let rules = set(1, &[metric_rule(1, 1, "> 90", 0)]);
    let mut shard = Shard::new(&rules);
    for host in 0..2_000 {
        shard.apply(&Event::Metrics(1, load(&format!("h{host}"), 1, Some(1.0))));
    }
    let mut kept = Kept::default();
    kept.keep(&mut shard.metrics);
    assert_eq!(kept.written, PARTS);
    shard.apply(&Event::Metrics(2, load("h7", 2, Some(95.0))));
    kept.keep(&mut shard.metrics);
    assert_eq!(kept.written, 1);
    kept.keep(&mut shard.metrics);
    assert_eq!(kept.written, 0);
    shard.metrics.unsaved(&[3, 9]);
    kept.keep(&mut shard.metrics);
    assert_eq!(kept.written, 2, "what could not be saved is saved the next time");
    assert_eq!(kept.restore(Signal::Metrics, &rules).evaluation.firing_count(), 1);
}
