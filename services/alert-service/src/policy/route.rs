//! Which route an alert takes, and with which others it is told.

use crate::alert::Alert;

/// The route that a rule implies by naming receivers.
#[must_use]
pub fn implied(rule_id: &str) -> String {
    format!("rule/{rule_id}")
}

/// Alerts that are told together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The same for the same route and key.
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// The route.
    pub route: String,
    /// What receivers know it by. It depends on what identifies alone, so no edit and no upgrade makes another.
    pub key: String,
}

/// The group of `alert` on the route that its rule implies: its own.
#[must_use]
pub fn group(alert: &Alert) -> Group {
    let route = implied(&alert.rule_id);
    Group {
        id: model::digest(&[&alert.tenant, &route, &alert.id]),
        tenant: alert.tenant.clone(),
        key: format!("{{rule={:?}}}:{{alert={:?}}}", alert.rule_id, alert.id),
        route,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_the_same_whatever_its_alert_is_called_and_however_it_is_described() {
        let alert = Alert { id: "a".into(), tenant: "t".into(), rule_id: "r".into(), ..Alert::default() };
        let renamed = Alert {
            rule_name: "other".into(),
            labels: [("alertname".to_owned(), "other".to_owned())].into(),
            descriptive: [("version".to_owned(), "2".to_owned())].into(),
            ..alert.clone()
        };
        assert_eq!(group(&alert), group(&renamed));
        assert_eq!(group(&alert).key, r#"{rule="r"}:{alert="a"}"#);
        for other in [Alert { id: "b".into(), ..alert.clone() }, Alert { tenant: "u".into(), ..alert.clone() }] {
            assert_ne!(group(&alert).id, group(&other).id);
        }
    }
}
