//! A rule in the form that evaluates fast. Pure.

use fault::Fault;
use proto::rules::RuleDocument;
use selector::Selector;
use uuid::Uuid;

use crate::kinds::Kind;

/// One version of a rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Which rule.
    pub id: Uuid,
    /// Which version of the document.
    pub version: u64,
    /// The version in which what decides was last changed: state belongs to this one.
    pub evaluated_version: u64,
    /// Whose it is.
    pub tenant: String,
    /// Its kind's name, which may be one that only a newer version of this service knows.
    pub kind: String,
    /// As people wrote it.
    pub document: RuleDocument,
    sense: Result<Sense, String>,
}

/// What this version makes of a document.
#[derive(Debug, Clone)]
struct Sense {
    selector: Selector,
    kind: Kind,
}

impl Rule {
    /// Makes a stored document ready to be evaluated. One that this version does not understand is kept as it is.
    #[must_use]
    pub fn new(
        id: Uuid,
        version: u64,
        evaluated_version: u64,
        tenant: String,
        kind: String,
        document: RuleDocument,
    ) -> Self {
        let sense = Sense::of(&kind, &document);
        Self { id, version, evaluated_version, tenant, kind, document, sense }
    }

    /// What decides in it; none where this version does not understand it.
    #[must_use]
    pub fn kind(&self) -> Option<&Kind> {
        self.sense.as_ref().ok().map(|sense| &sense.kind)
    }

    /// Why this version cannot evaluate it, where it cannot.
    #[must_use]
    pub fn not_understood(&self) -> Option<&str> {
        self.sense.as_ref().err().map(String::as_str)
    }

    /// Which series or resources it is about, where this version understands it.
    #[must_use]
    pub fn selector(&self) -> Option<&Selector> {
        self.sense.as_ref().ok().map(|sense| &sense.selector)
    }

    /// Whether the rule is about a thing of which `label` says the labels.
    #[must_use]
    pub fn is_about<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.sense.as_ref().is_ok_and(|sense| sense.selector.matches(label))
    }

    /// Whether `other` decides as this one does.
    #[must_use]
    pub fn decides_as(&self, other: &Self) -> bool {
        (self.id, self.evaluated_version) == (other.id, other.evaluated_version)
    }

    /// Whether it is about the subjects that `before` was about.
    #[must_use]
    pub fn is_about_those_of(&self, before: &Self) -> bool {
        crate::kinds::about(&self.document) == crate::kinds::about(&before.document)
    }

    /// What an alert shows as its condition.
    #[must_use]
    pub fn condition(&self) -> String {
        self.kind().map_or_else(|| self.document.condition.clone(), Kind::condition)
    }

    /// Nanoseconds after its own time from which on what is received is late; none where the rule leaves it to the service.
    #[must_use]
    pub fn late_after(&self) -> Option<u64> {
        let millis = self.document.late_after_millis;
        (millis != 0).then(|| millis.saturating_mul(1_000_000))
    }
}

impl Sense {
    fn of(kind: &str, document: &RuleDocument) -> Result<Self, String> {
        let compiled = Kind::compile(document).filter(|_| crate::kinds::name_of(document) == Some(kind));
        let compiled = compiled.ok_or_else(|| format!("this version knows no rules of the kind `{kind}`"))?;
        let selector = Selector::parse(&document.r#match).map_err(|error| error.to_string())?;
        Ok(Self { selector, kind: compiled.map_err(|fault: Fault| fault.to_string())? })
    }
}
