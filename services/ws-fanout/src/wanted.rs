//! What a client wants to see, from the parameters of its request.

use authn::Scope;
use fault::Fault;
use selector::Selector;
use series::WantedName;

use crate::kind::Kind;

/// Names that one client may ask for.
const MOST_NAMES: usize = 100;

/// Which events a client wants.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) selector: Selector,
    /// Metric names; empty takes all.
    pub(crate) names: Vec<WantedName>,
    pub(crate) resource_id: Option<String>,
}

impl Wanted {
    /// Reads the query of a request by somebody who sees `scope`.
    pub(crate) async fn read(kind: Kind, query: &str, scope: &Scope) -> fault::Result<Self> {
        let mut wanted = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "match" => {
                    let selector = Selector::read(&value).await;
                    wanted.selector = selector.map_err(|error| Fault::field("match", error.to_string()))?;
                }
                "name" if kind == Kind::Metrics && wanted.names.len() == MOST_NAMES => {
                    return Err(Fault::field("name", format!("write {MOST_NAMES} names at the most, or a selector")));
                }
                "name" if kind == Kind::Metrics => wanted.names.push(WantedName::new(&value)),
                "resource_id" => wanted.resource_id = Some(value.into_owned()),
                other => return Err(Fault::field(other, "this stream does not know this parameter")),
            }
        }
        wanted.selector = scope.narrow(&wanted.selector);
        Ok(wanted)
    }

    /// Whether something of this resource may be wanted at all.
    pub(crate) fn is_about(&self, resource_id: &str) -> bool {
        self.resource_id.as_deref().is_none_or(|wanted| wanted == resource_id)
    }
}
