//! The one walk over a request: is it well-formed, what does it hold, what of it cannot be taken.

use std::borrow::Cow;

use crate::cut;
use crate::judge::{self, MAX_NESTING, nested};
use crate::limits::{Mode, Reason, Refusals, Rules};
use crate::schema::RESOURCE;
use crate::signal::Signal;
use crate::stamp::RESERVED_PREFIX;
use crate::value::Attribute;
use crate::walk::{each, resource_attributes};
use crate::wire::{Invalid, Reader, TOO_MANY};

/// One `ResourceMetrics` or `ResourceLogs` of a request.
#[derive(Debug, Clone)]
pub struct Checked<'a> {
    pub(crate) content: &'a [u8],
    pub(crate) signal: Signal,
    /// Items that are taken.
    pub items: u64,
    /// Items that are not.
    pub refused: Refusals,
    /// At least one log record has a time of its own (observed times count); not determined for metrics.
    pub timed: bool,
    /// The client used attribute keys that are ours.
    reserved: bool,
}

impl<'a> Checked<'a> {
    /// The resource's attributes, without those that the client may not set.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        resource_attributes(self.content).filter(|attribute| !attribute.key.starts_with(RESERVED_PREFIX))
    }

    /// The bytes of the resource, when it stands in one place: where they are equal it is the same resource.
    #[must_use]
    pub fn resource(&self) -> Option<&'a [u8]> {
        let mut found = each(self.content, 1);
        let first = found.next().unwrap_or_default();
        found.next().is_none().then_some(first)
    }

    /// What is handed on: the bytes that arrived, or a copy without refused items and reserved attributes.
    ///
    /// `rules` must be those of the check.
    #[must_use]
    pub fn kept(&self, rules: &Rules) -> Cow<'a, [u8]> {
        if !self.is_whole() {
            Cow::Owned(cut::rebuild(self.content, self.signal, rules))
        } else {
            Cow::Borrowed(self.content)
        }
    }

    /// Whether all of it is kept.
    pub(crate) fn is_whole(&self) -> bool {
        !self.reserved && self.refused.total() == 0
    }
}

/// What a request holds.
#[derive(Debug, Clone, Default)]
pub struct Walk<'a> {
    /// Resource by resource, in the request's order; those without any item left are there too.
    pub resources: Vec<Checked<'a>>,
    /// Items that are taken.
    pub items: u64,
    /// Items that are not.
    pub refused: Refusals,
}

/// How many resources a request has, without looking into them; counts no further than `most`, nor past what is broken.
#[must_use]
pub fn count_resources(request: &[u8], most: usize) -> usize {
    each(request, 1).take(most).count()
}

/// Checks a request. Its items are data points or log records.
///
/// # Errors
/// Not a single byte of it can be used, or it holds too many items ([`Invalid::is_too_many`]).
pub fn check<'a>(request: &'a [u8], signal: Signal, rules: &Rules) -> Result<Walk<'a>, Invalid> {
    let mut walk = Walk::default();
    each_resource(request, signal, Mode::Gateway(rules), |checked| {
        walk.items += checked.items;
        walk.refused.merge(&checked.refused);
        walk.resources.push(checked);
    })?;
    Ok(walk)
}

/// Whether any reader can read it.
pub(crate) fn well_formed(request: &[u8], signal: Signal) -> Result<(), Invalid> {
    each_resource(request, signal, Mode::Reader, |_| {})
}

fn each_resource<'a>(
    request: &'a [u8],
    signal: Signal,
    mode: Mode<'_>,
    mut take: impl FnMut(Checked<'a>),
) -> Result<(), Invalid> {
    let schema = signal.levels().request;
    let mut left = match mode {
        Mode::Gateway(rules) => rules.limits.items as u64,
        Mode::Reader => u64::MAX,
    };
    let mut reader = Reader::new(request);
    while let Some((number, wire)) = reader.next().map_err(|problem| schema.invalid(problem))? {
        if number == 1 {
            take(one(nested(schema, wire)?, signal, mode, &mut left)?);
        }
    }
    Ok(())
}

fn one<'a>(content: &'a [u8], signal: Signal, mode: Mode<'_>, left: &mut u64) -> Result<Checked<'a>, Invalid> {
    let schema = signal.levels().resource;
    let mut checked =
        Checked { content, signal, items: 0, refused: Refusals::default(), timed: false, reserved: false };
    let (mut scopes, mut header) = (0, 0);
    let mut reader = Reader::new(content);
    let mut begin = 0;
    while let Some((number, wire)) = reader.next().map_err(|problem| schema.invalid(problem))? {
        if number == 2 {
            scopes += 1;
            scope(nested(schema, wire)?, &mut checked, mode, left)?;
        } else {
            match number {
                1 => checked.reserved |= resource(nested(schema, wire)?)?,
                _ => schema.check_field(number, wire, MAX_NESTING)?,
            }
            header += reader.position() - begin;
        }
        begin = reader.position();
    }
    if let Mode::Gateway(rules) = mode
        && (header > rules.limits.header_bytes || scopes > rules.limits.scopes)
    {
        // The request's other resources are none the worse for it.
        checked.refused = Refusals::all(Reason::TooLarge, checked.items + checked.refused.total());
        checked.items = 0;
    }
    Ok(checked)
}

/// Whether the client used reserved keys.
fn resource(content: &[u8]) -> Result<bool, Invalid> {
    RESOURCE.check(content, MAX_NESTING)?;
    let mut keys = each(content, 1).map(Attribute::read);
    Ok(keys.any(|attribute| attribute.key.starts_with(RESERVED_PREFIX)))
}

/// `left` is how many items the request may still have.
fn scope(content: &[u8], checked: &mut Checked<'_>, mode: Mode<'_>, left: &mut u64) -> Result<(), Invalid> {
    let schema = checked.signal.levels().scope;
    let (mut items, mut refused, mut timed) = (0, Refusals::default(), false);
    let mut header = judge::ScopeHeader::default();
    let mut reader = Reader::new(content);
    let mut begin = 0;
    while let Some((number, wire)) = reader.next().map_err(|problem| schema.invalid(problem))? {
        if number != 2 {
            schema.check_field(number, wire, MAX_NESTING)?;
            header.add(number, wire, reader.position() - begin);
            begin = reader.position();
            continue;
        }
        begin = reader.position();
        let item = nested(schema, wire)?;
        let mut counted = 1;
        match checked.signal {
            Signal::Metrics => {
                let metric = judge::metric(item, mode)?;
                counted = metric.points.max(1);
                match metric.whole {
                    Some(reason) => refused.add(reason, metric.points),
                    None => {
                        items += metric.points - metric.single.total();
                        refused.merge(&metric.single);
                    }
                }
            }
            Signal::Logs => {
                let record = judge::record(item, mode)?;
                match record.refused {
                    Some(reason) => refused.add(reason, 1),
                    None => {
                        items += 1;
                        timed |= record.timed;
                    }
                }
            }
        }
        *left = left.checked_sub(counted).ok_or_else(|| schema.invalid(TOO_MANY))?;
    }
    if let Some(reason) = header.refused(mode) {
        checked.refused.add(reason, items + refused.total());
        return Ok(());
    }
    checked.items += items;
    checked.timed |= timed;
    checked.refused.merge(&refused);
    Ok(())
}
