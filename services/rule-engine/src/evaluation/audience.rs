//! How many resources log rules are about: those that have written something lately, whether a rule fired for them or not.
//! Only for people to see; nothing is decided by it, and it is not saved.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use model::HashedMap;
use otlp::ResourceLogs;
use uuid::Uuid;

use super::logs::Writer;
use super::slots::Binding;
use super::subjects::nanos;
use crate::budget::Budget;
use crate::kinds::Kind;
use crate::rule::Rule;
use crate::rule_set::{Candidates, RuleSet};

/// Resources that are remembered in each of two generations; what is beyond is not counted.
const RESOURCES: usize = 50_000;
/// Of them, those of one tenant.
const RESOURCES_OF_TENANT: usize = RESOURCES / 4;
/// Ids of rules in all the lists of one tenant together; a resource whose list has no place is not counted. Most resources
/// share a few lists.
const LISTED_OF_TENANT: usize = 1_000_000;
/// What one message may cost here, in looks at rules; resources that are left are counted when they write again.
const LOOKS: u64 = 100_000;

/// Resources by the hash of their attributes' bytes, with the rules that are about them.
#[derive(Default)]
pub(super) struct Audience {
    young: HashedMap<Heard>,
    old: HashedMap<Heard>,
    turned: u64,
    by_tenant: HashMap<String, Arc<Candidates>>,
    lists: HashMap<Arc<str>, Lists>,
    /// Of the young, how many each tenant has.
    of_tenant: HashMap<String, usize>,
}

#[derive(Clone)]
struct Heard {
    tenant: Arc<str>,
    subject: u64,
    rules: List,
    /// Rules may be about it that were not asked.
    is_stale: bool,
}

/// The rules that are about a resource, in order.
type List = Arc<[Uuid]>;

/// The lists of one tenant, each once.
#[derive(Default)]
struct Lists {
    known: HashSet<List>,
    ids: usize,
}

impl Lists {
    /// The one list that says this; none where there is no room for another.
    fn one(&mut self, rules: Vec<Uuid>) -> Option<List> {
        if let Some(known) = self.known.get(rules.as_slice()) {
            return Some(Arc::clone(known));
        }
        if self.ids + rules.len() > LISTED_OF_TENANT {
            return None;
        }
        self.ids += rules.len();
        let list: List = rules.into();
        self.known.insert(Arc::clone(&list));
        Some(list)
    }

    /// Forgets those that no resource has.
    fn tidy(&mut self) {
        self.known.retain(|list| Arc::strong_count(list) > 1);
        self.ids = self.known.iter().map(|list| list.len()).sum();
    }
}

impl Audience {
    /// What one message may cost.
    pub(super) fn budget() -> Budget {
        Budget::new(LOOKS)
    }

    pub(super) fn hear(&mut self, rules: &RuleSet, tenant: &str, resource: ResourceLogs<'_>, budget: &mut Budget) {
        if budget.left() == 0 {
            return;
        }
        let key = key(tenant, resource);
        let known = self.young.get(&key);
        if known.is_some_and(|heard| !heard.is_stale) {
            return;
        }
        let is_new = known.is_none();
        let count = self.of_tenant.get(tenant).copied().unwrap_or(0);
        if is_new && (self.young.len() >= RESOURCES || count >= RESOURCES_OF_TENANT) {
            return;
        }
        let heard = match self.old.get(&key).filter(|heard| is_new && !heard.is_stale) {
            Some(heard) => heard.clone(),
            None => {
                let writer = Writer::read(tenant, resource);
                let candidates = self.rules_of(rules, tenant);
                let Some(about) = candidates.about(budget, |name| writer.label(name)) else { return };
                let tenant = match self.lists.get_key_value(tenant) {
                    Some((tenant, _)) => Arc::clone(tenant),
                    None => Arc::from(tenant),
                };
                let lists = self.lists.entry(Arc::clone(&tenant)).or_default();
                let Some(rules) = lists.one(about.into_iter().map(|rule| rule.id).collect()) else { return };
                Heard { tenant, subject: writer.id, rules, is_stale: false }
            }
        };
        self.old.remove(&key);
        self.young.insert(key, heard);
        if is_new {
            self.of_tenant.insert(tenant.to_owned(), count + 1);
        }
    }

    fn rules_of(&mut self, rules: &RuleSet, tenant: &str) -> Arc<Candidates> {
        if let Some(known) = self.by_tenant.get(tenant) {
            return Arc::clone(known);
        }
        let of_tenant = rules.iter().filter(|rule| rule.tenant == tenant && looks_at_logs(rule));
        let of_tenant = Candidates::next(rules.revision, of_tenant.map(Arc::clone).collect(), None);
        self.by_tenant.insert(tenant.to_owned(), Arc::clone(&of_tenant));
        of_tenant
    }

    /// What was not heard of for twice that long is forgotten.
    pub(super) fn pass_time(&mut self, now: u64, idle: Duration) {
        if now.saturating_sub(self.turned) >= nanos(idle) {
            self.turned = now;
            self.old = std::mem::take(&mut self.young);
            self.of_tenant.clear();
            self.tidy();
        }
    }

    fn tidy(&mut self) {
        self.lists.values_mut().for_each(Lists::tidy);
        self.lists.retain(|_, lists| !lists.known.is_empty());
    }

    /// Resources of tenants whose rules are about others now stay with the rules that are not, until they write again.
    pub(super) fn rules_changed(&mut self, before: &RuleSet, rules: &RuleSet) {
        let (before, after) = (by_tenant(before), by_tenant(rules));
        let is_same = |tenant: &str, rule: &Uuid| {
            let [was, is] = [&before, &after].map(|all| all.get(tenant).and_then(|rules| rules.get(rule)));
            was.is_some() && was == is
        };
        let tenants: HashSet<&str> = before.keys().chain(after.keys()).copied().collect();
        let changed: HashSet<&str> =
            tenants.into_iter().filter(|tenant| before.get(tenant) != after.get(tenant)).collect();
        let mut made: HashMap<*const Uuid, List> = HashMap::new();
        for heard in self.young.values_mut().chain(self.old.values_mut()) {
            if !changed.contains(&*heard.tenant) {
                continue;
            }
            heard.is_stale = true;
            let stay = made.entry(heard.rules.as_ptr()).or_insert_with(|| {
                let stay = heard.rules.iter().filter(|rule| is_same(&heard.tenant, rule)).copied().collect();
                // Shorter than before, so there is always room but for what nobody has any more.
                let lists = self.lists.entry(Arc::clone(&heard.tenant)).or_default();
                lists.one(stay).unwrap_or_default()
            });
            heard.rules = Arc::clone(stay);
        }
        drop(made);
        self.tidy();
        self.by_tenant.clear();
    }

    /// Counts of all log rules, with what the evaluation says about room.
    pub(super) fn bindings(&self, rules: &RuleSet, bound: Vec<Binding>) -> Vec<Binding> {
        let over: HashMap<Uuid, u64> = bound.iter().map(|binding| (binding.rule, binding.over_capacity)).collect();
        // A resource that is remembered in several forms counts once, as it was seen last.
        let mut subjects: HashedMap<&List> = HashedMap::default();
        for heard in self.old.values().chain(self.young.values()) {
            subjects.insert(heard.subject, &heard.rules);
        }
        let mut by_list: HashMap<*const Uuid, (&List, u64)> = HashMap::new();
        for list in subjects.into_values() {
            by_list.entry(list.as_ptr()).or_insert((list, 0)).1 += 1;
        }
        let mut counts: HashMap<Uuid, u64> = HashMap::new();
        for (list, subjects) in by_list.into_values() {
            list.iter().for_each(|rule| *counts.entry(*rule).or_default() += subjects);
        }
        let counted = |(id, subjects)| {
            Some(Binding {
                rule: id,
                evaluated_version: rules.rule(id)?.evaluated_version,
                subjects,
                over_capacity: over.get(&id).copied().unwrap_or(0),
            })
        };
        counts.into_iter().filter_map(counted).collect()
    }
}

fn looks_at_logs(rule: &Rule) -> bool {
    matches!(rule.kind(), Some(Kind::Log(_))) && !rule.document.disabled
}

/// Which resources the log rules of each tenant are about.
type ByTenant<'a> = HashMap<&'a str, BTreeMap<Uuid, &'a str>>;

fn by_tenant(rules: &RuleSet) -> ByTenant<'_> {
    let mut all = ByTenant::new();
    for rule in rules.iter().filter(|rule| looks_at_logs(rule)) {
        all.entry(&rule.tenant).or_default().insert(rule.id, &rule.document.r#match);
    }
    all
}

/// Attributes in other bytes are another key, and at worst looked at once more.
fn key(tenant: &str, resource: ResourceLogs<'_>) -> u64 {
    let mut text = Vec::with_capacity(256);
    text.extend_from_slice(tenant.as_bytes());
    for attribute in resource.attributes().filter(|attribute| !attribute.key.starts_with("sightline.batch.")) {
        text.push(0);
        text.extend_from_slice(attribute.key.as_bytes());
        text.push(0);
        text.extend_from_slice(attribute.value.text().as_bytes());
    }
    xxhash_rust::xxh3::xxh3_64(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_lists_are_kept_once_and_all_of_a_tenant_are_bounded() {
        let mut lists = Lists::default();
        let rules = |from: u128| (from..from + 2_000).map(Uuid::from_u128).collect::<Vec<_>>();
        let first = lists.one(rules(0)).unwrap();
        for _ in 0..10_000 {
            assert!(Arc::ptr_eq(&first, &lists.one(rules(0)).unwrap()));
        }
        let kept: Vec<List> = (1..1_000).map_while(|from| lists.one(rules(from))).collect();
        assert_eq!((kept.len() + 1, lists.ids), (LISTED_OF_TENANT / 2_000, LISTED_OF_TENANT));
        drop(kept);
        lists.tidy();
        assert_eq!((lists.known.len(), lists.ids), (1, 2_000));
    }
}
