//! Resources and the lines that they write.
//!
//! A rule's selector sees every attribute of the resource; what travels with a transition is cut, what identifies first.

use std::collections::HashMap;
use std::sync::Arc;

use otlp::{Invalid, LogRecord, Logs, ResourceLogs};

use super::audience::Audience;
use super::{Evaluation, Tally};
use crate::budget::Budget;
use crate::kinds::log::Line;
use crate::naming::{Labels, Naming};
use crate::rule::Rule;
use crate::rule_set::{Candidates, Seen};
use crate::transition::Decision;

/// As many labels as a series has.
const MAX_LABELS: usize = series::MAX_LABELS;
const MAX_LABEL_VALUE: usize = 1_024;
/// Labels that say most about where a line comes from, by how they begin; the rest follows in the order of the alphabet.
const FIRST: [&str; 6] = ["host_", "service_", "k8s_", "container_", "deployment_", "cloud_"];

/// What wrote lines.
pub(super) struct Writer {
    /// Hash of the tenant and what identifies it.
    pub(super) id: u64,
    resource_id: String,
    /// Every attribute under its label's name, sorted.
    labels: Vec<(String, String)>,
}

/// A writer, and who is about it of the rules on the texts that it has written: found once for all of its lines.
struct About<'a> {
    writer: Writer,
    by_text: HashMap<usize, Vec<&'a Arc<Rule>>>,
}

impl<'a> About<'a> {
    fn new(writer: Writer) -> Self {
        Self { writer, by_text: HashMap::new() }
    }

    /// The rules on a text that are about the writer; nothing where the budget does not pay for finding them.
    fn rules(
        &mut self,
        text: usize,
        candidates: &'a Candidates,
        budget: &mut Budget,
    ) -> Option<(&Writer, &[&'a Arc<Rule>])> {
        if !self.by_text.contains_key(&text) {
            let about = candidates.about(budget, |name| self.writer.label(name))?;
            self.by_text.insert(text, about);
        }
        Some((&self.writer, self.by_text.get(&text)?))
    }
}

/// A line with everything around it.
struct Found<'a> {
    tenant: &'a str,
    record: &'a LogRecord<'a>,
    body: &'a str,
    received: u64,
}

impl Evaluation {
    pub(super) fn logs(
        &mut self,
        (tenant, received): (&str, u64),
        (body, items): (&[u8], u64),
        (budget, showing): (&mut Budget, &mut Budget),
        decisions: &mut Vec<Decision>,
    ) -> Result<Tally, Invalid> {
        let mut tally = Tally::default();
        let Some(literals) = self.rules.on_logs(tenant).map(Arc::clone) else {
            tally.items = items;
            return Ok(tally);
        };
        let (mut seen, mut for_audience) = (Seen::default(), Audience::budget());
        for resource in Logs::parse(body)?.resources() {
            let is_new = resource.batch().is_none_or(|(batch, part)| self.batches.is_new(tenant, batch, part));
            self.batches_changed |= is_new && resource.batch().is_some();
            if !is_new {
                tally.repeated += resource.scopes().map(|scope| scope.records().count() as u64).sum::<u64>();
                continue;
            }
            self.audience.hear(&self.rules, tenant, resource, &mut for_audience);
            // Most resources write nothing that is looked for.
            let mut writer: Option<About<'_>> = None;
            for record in resource.scopes().flat_map(|scope| scope.records()) {
                tally.items += 1;
                let body = record.body.text();
                let found = Found { tenant, record: &record, body: &body, received };
                let is_read = literals.each_in(&body, &mut seen, budget, |budget, text, candidates| {
                    let about = writer.get_or_insert_with(|| About::new(Writer::read(tenant, resource)));
                    let Some((writer, rules)) = about.rules(text, candidates, budget) else { return false };
                    for rule in rules {
                        if !budget.pays(1) || showing.left() == 0 {
                            return false;
                        }
                        let decided = decisions.len();
                        self.found(rule, writer, &found, &mut tally, decisions);
                        let _ = showing.pays(decisions[decided..].iter().map(|made| Budget::telling(&made.rule)).sum());
                    }
                    true
                });
                tally.over_work += u64::from(!is_read);
            }
        }
        Ok(tally)
    }

    fn found(
        &mut self,
        rule: &Arc<Rule>,
        writer: &Writer,
        found: &Found<'_>,
        tally: &mut Tally,
        decisions: &mut Vec<Decision>,
    ) {
        let record = found.record;
        let time = self.limits.times.log(record.time_unix_nano, record.observed_unix_nano, found.received);
        if let Some(why) = time.wrong {
            tally.disbelieved(why);
        }
        let time = u64::try_from(time.unix_nano).unwrap_or(0);
        if !self.subjects.knows(writer.id) {
            let (labels, cut) = writer.shown();
            tally.cut_labels += cut;
            let naming = Naming::Labels(Arc::new(labels));
            if !self.subjects.admit(found.tenant, writer.id, &naming, &self.limits) {
                tally.over_capacity += 1;
                self.subjects.slots.refused(rule);
                return;
            }
        }
        if !self.subjects.bind(writer.id, rule, &self.limits) {
            tally.over_capacity += 1;
            self.subjects.slots.refused(rule);
            return;
        }
        let slot = self.subjects.slots.known(rule.id);
        // A gateway that lags must not make lines that are over before they come.
        let line = Line { time, heard: self.subjects.now(), body: found.body };
        let asides = (&self.limits, tally, decisions);
        self.subjects.show(writer.id, slot, (time, found.received), asides, |kind, state| kind.on_line(state, line));
    }
}

impl Writer {
    /// `host.name` is `host_name`, as everywhere; what the gateway stamped is `resource_id` and `kind`.
    pub(super) fn read(tenant: &str, logs: ResourceLogs<'_>) -> Self {
        let (mut id, mut kind) = (String::new(), String::new());
        let mut labels: Vec<(String, String)> = Vec::new();
        for attribute in logs.attributes() {
            let value = series::label_value(&attribute.value.text()).into_owned();
            match attribute.key {
                // Stamped behind what the client wrote, so the last one counts.
                "sightline.resource.id" => id = value,
                "sightline.resource.kind" => kind = value,
                key if key.starts_with("sightline.") => {}
                key => labels.push((series::label_name(key), value)),
            }
        }
        labels.retain(|(name, _)| !["tenant", "resource_id", "kind"].contains(&name.as_str()));
        let stamped = [("resource_id", &id), ("kind", &kind)];
        labels.extend(stamped.map(|(name, value)| (name.to_owned(), value.clone())));
        // Of a name that repeats, the last counts, as in maps of protobuf: reversed, the last is the first of its name.
        labels.reverse();
        labels.sort_by(|(a, _), (b, _)| a.cmp(b));
        labels.dedup_by(|later, first| later.0 == first.0);
        labels.retain(|(_, value)| !value.is_empty());
        let pairs = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let tenant = ("tenant", tenant);
        let hash = if id.is_empty() {
            model::series_hash([tenant].into_iter().chain(pairs))
        } else {
            model::series_hash([tenant, ("resource_id", id.as_str())])
        };
        Self { id: hash, resource_id: id, labels }
    }

    pub(super) fn label(&self, name: &str) -> Option<&str> {
        let found = self.labels.binary_search_by(|(label, _)| label.as_str().cmp(name));
        found.ok().map(|index| self.labels[index].1.as_str())
    }

    /// The labels that travel, and how many do not.
    fn shown(&self) -> (Labels, u64) {
        let rank = |name: &str| match name {
            "kind" => 0,
            _ => 1 + FIRST.iter().position(|first| name.starts_with(first)).unwrap_or(FIRST.len()),
        };
        let mut descriptive: Vec<(String, String)> =
            self.labels.iter().filter(|(n, _)| n != "resource_id").cloned().collect();
        descriptive.sort_by_key(|(name, _)| rank(name));
        let cut = descriptive.len().saturating_sub(MAX_LABELS) as u64;
        descriptive.truncate(MAX_LABELS);
        descriptive.sort_unstable();
        for (_, value) in &mut descriptive {
            value.truncate(value.floor_char_boundary(MAX_LABEL_VALUE));
        }
        if self.resource_id.is_empty() {
            return (Labels { identifying: descriptive, descriptive: Vec::new() }, cut);
        }
        (Labels { identifying: vec![("resource_id".to_owned(), self.resource_id.clone())], descriptive }, cut)
    }
}
