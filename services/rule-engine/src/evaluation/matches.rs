//! Log rules: a literal in a body fires for the resource that wrote it, and resolves some time after the last match, by
//! the time that passes on the stream.

use std::collections::BTreeMap;
use std::sync::Arc;

use otlp::{LogRecord, ResourceLogs};
use uuid::Uuid;

use super::{CAPACITY, IDLE_SECONDS, Tally};
use crate::book::{Book, Literals};
use crate::rule::{Rule, Watch};
use crate::snapshot::SavedMatch;
use crate::transition::{Decision, State};

/// The longest part of a line that a transition shows, in bytes.
const MAX_LINE: usize = 4_096;
/// As many labels as a series has.
const MAX_LABELS: usize = series::MAX_LABELS;
const MAX_LABEL_VALUE: usize = 1_024;

/// Rule and hash of the resource.
type Key = (Uuid, u64);

#[derive(Default)]
pub(crate) struct Matches {
    /// In order, so that what ends at one moment is told in the same order every time.
    matches: BTreeMap<Key, Match>,
    /// Newest time at which a gateway took something in, on either stream.
    now: u64,
    /// No hold ends before that, and nothing becomes old enough to be forgotten.
    next: u64,
}

/// A rule that matched a resource's line. Times are Unix nanoseconds.
pub(crate) struct Match {
    pub(crate) rule: Arc<Rule>,
    pub(crate) fires: bool,
    /// Time of the line with which it fired.
    pub(crate) since: u64,
    /// Newest time of a line that matched: the same line again is no news.
    pub(crate) newest: u64,
    /// When the gateway took in the last line that matched.
    pub(crate) received: u64,
    /// Sample time of the last transition, behind which none may fall.
    pub(crate) told: u64,
    pub(crate) line: String,
    pub(crate) resource: Arc<Resource>,
}

/// What wrote a line.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) hash: u64,
    pub(crate) id: String,
    pub(crate) labels: Arc<[(String, String)]>,
}

impl Matches {
    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    pub(crate) fn resource(
        &mut self,
        literals: &Literals,
        tenant: &str,
        logs: ResourceLogs<'_>,
        received: u64,
        tally: &mut Tally,
        decide: &mut dyn FnMut(Decision),
    ) {
        // Most resources write nothing that matches.
        let mut known: Option<Arc<Resource>> = None;
        for record in logs.scopes().flat_map(|scope| scope.records()) {
            tally.items += 1;
            let body = record.body.text();
            literals.each_in(&body, |rule| {
                tally.evaluated += 1;
                let resource = known.get_or_insert_with(|| Arc::new(Resource::read(tenant, logs)));
                if rule.is_about(|name| resource.label(name)) {
                    let full = self.matches.len() >= CAPACITY;
                    let key = (rule.id, resource.hash);
                    if full && !self.matches.contains_key(&key) {
                        tally.over_capacity += 1;
                        return;
                    }
                    self.matched(key, rule, resource, &record, &body, received, decide);
                }
            });
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one line with everything around it")]
    fn matched(
        &mut self,
        key: Key,
        rule: &Arc<Rule>,
        resource: &Arc<Resource>,
        record: &LogRecord<'_>,
        body: &str,
        received: u64,
        decide: &mut dyn FnMut(Decision),
    ) {
        let time = match record.time_or_observed() {
            0 => received,
            time => time,
        };
        let found = self.matches.entry(key).or_insert_with(|| Match {
            rule: Arc::clone(rule),
            fires: false,
            since: 0,
            newest: 0,
            received: 0,
            told: 0,
            line: String::new(),
            resource: Arc::clone(resource),
        });
        let is_news = time > found.newest;
        found.newest = found.newest.max(time);
        if !found.fires && !is_news {
            return;
        }
        found.received = found.received.max(received);
        found.line = body[..body.floor_char_boundary(MAX_LINE)].to_owned();
        if !found.fires {
            found.fires = true;
            found.since = time;
            found.told = found.told.max(time);
            found.resource = Arc::clone(resource);
            decide(found.decision(State::Firing, received));
        }
        self.next = self.next.min(found.ends());
    }

    /// The stream has come to `received`: holds that ended by then resolve.
    pub(crate) fn pass_time(&mut self, received: u64, decide: &mut dyn FnMut(Decision)) {
        self.now = self.now.max(received);
        if self.now < self.next {
            return;
        }
        let now = self.now;
        let mut next = u64::MAX;
        self.matches.retain(|_, found| {
            let ended = found.ends();
            if found.fires && ended <= now {
                found.fires = false;
                // A client's clock may be ahead of the gateway's.
                found.told = found.told.max(ended).max(found.newest);
                decide(found.decision(State::Resolved, now));
            }
            let stays = found.ends() > now;
            if stays {
                next = next.min(found.ends());
            }
            stays
        });
        self.next = next;
    }

    pub(crate) fn switch(&mut self, book: &Book, decide: &mut dyn FnMut(Decision)) {
        let now = self.now;
        self.matches.retain(|_, found| {
            let stays = book.has(&found.rule);
            if !stays && found.fires {
                found.told = found.told.max(found.newest);
                decide(found.decision(State::Resolved, now));
            }
            stays
        });
    }

    pub(crate) fn save(&self) -> Vec<SavedMatch> {
        self.matches.values().map(SavedMatch::of).collect()
    }

    /// Matches of rules that `book` does not have are left out.
    pub(crate) fn restore(book: &Book, saved: Vec<SavedMatch>, now: u64) -> Self {
        let matches = saved.into_iter().filter_map(|saved| saved.into_match(book)).collect();
        Self { matches, now, next: 0 }
    }
}

impl Match {
    /// When the hold ends or, once it has, when the match is forgotten.
    fn ends(&self) -> u64 {
        match &self.rule.watch {
            Watch::Log { hold_ns, .. } if self.fires => self.received.saturating_add(*hold_ns),
            Watch::Log { hold_ns, .. } => {
                self.received.saturating_add(*hold_ns).saturating_add(IDLE_SECONDS * 1_000_000_000)
            }
            Watch::Metric { .. } => 0,
        }
    }

    fn decision(&self, state: State, received_unix_nano: u64) -> Decision {
        Decision {
            rule: Arc::clone(&self.rule),
            state,
            series: self.resource.hash,
            labels: Arc::clone(&self.resource.labels),
            resource_id: self.resource.id.clone(),
            value: f64::NAN,
            line: self.line.clone(),
            sample_unix_nano: self.told,
            since_unix_nano: self.since,
            received_unix_nano,
        }
    }
}

impl Resource {
    pub(crate) fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    fn label(&self, name: &str) -> Option<&str> {
        let found = self.labels.binary_search_by(|(label, _)| label.as_str().cmp(name));
        found.ok().map(|index| self.labels[index].1.as_str())
    }

    /// A resource's labels are its attributes, named as in series: `host.name` is `host_name`; those that the gateway
    /// stamped are `resource_id` and `kind`.
    fn read(tenant: &str, logs: ResourceLogs<'_>) -> Self {
        let mut id = String::new();
        let mut kind = String::new();
        let mut labels: Vec<(String, String)> = Vec::new();
        for attribute in logs.attributes() {
            let mut value = attribute.value.text().into_owned();
            value.truncate(value.floor_char_boundary(MAX_LABEL_VALUE));
            match attribute.key {
                // Stamped behind what the client wrote, so the last one counts.
                "sightline.resource.id" => id = value,
                "sightline.resource.kind" => kind = value,
                key if key.starts_with("sightline.") || value.is_empty() => {}
                key => labels.push((series::metric_name(key).replace(':', "_"), value)),
            }
        }
        labels.retain(|(name, _)| !["tenant", "resource_id", "kind"].contains(&name.as_str()));
        // Sorted stably: of a name that repeats, the first counts.
        labels.sort_by(|(a, _), (b, _)| a.cmp(b));
        labels.dedup_by(|later, first| later.0 == first.0);
        labels.truncate(MAX_LABELS);
        let stamped = [("resource_id", &id), ("kind", &kind)];
        labels.extend(
            stamped
                .iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(name, value)| ((*name).to_owned(), (*value).clone())),
        );
        labels.sort_unstable();
        let identity: Vec<(&str, &str)> = if id.is_empty() {
            labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
        } else {
            vec![("resource_id", id.as_str())]
        };
        let hash = model::series_hash([("tenant", tenant)].into_iter().chain(identity));
        Self { hash, id, labels: labels.into() }
    }
}
