//! How much one request, and one item of it, may be.

use otlp::Limits;

use crate::collector::MAX_ITEMS;

/// Limits of OTLP requests; each refusal is told to the client by item, where only an item is wrong.
#[derive(clap::Args, Debug, Clone)]
#[group(skip)]
pub struct Otlp {
    /// Resources of one request
    #[arg(long = "otlp-resources", env = "SIGHTLINE_OTLP_RESOURCES", default_value_t = Limits::default().resources)]
    pub resources: usize,
    /// Scopes of one resource
    #[arg(long = "otlp-scopes", env = "SIGHTLINE_OTLP_SCOPES", default_value_t = Limits::default().scopes)]
    pub scopes: usize,
    /// Data points or log records of one request; refused ones and metrics without points count
    #[arg(long = "otlp-items", env = "SIGHTLINE_OTLP_ITEMS", default_value_t = Limits::default().items)]
    pub items: usize,
    /// Attributes of a data point; at most 20, which is what a series has room for
    #[arg(long = "otlp-point-attributes", env = "SIGHTLINE_OTLP_POINT_ATTRIBUTES", default_value_t = Limits::default().point_attributes)]
    pub point_attributes: usize,
    /// Attributes of a log record
    #[arg(long = "otlp-record-attributes", env = "SIGHTLINE_OTLP_RECORD_ATTRIBUTES", default_value_t = Limits::default().record_attributes)]
    pub record_attributes: usize,
    /// Bytes of an attribute's key
    #[arg(long = "otlp-key-bytes", env = "SIGHTLINE_OTLP_KEY_BYTES", default_value = "256", value_parser = size)]
    pub key_bytes: usize,
    /// Bytes of the value of a data point's attribute
    #[arg(long = "otlp-value-bytes", env = "SIGHTLINE_OTLP_VALUE_BYTES", default_value = "4KiB", value_parser = size)]
    pub value_bytes: usize,
    /// Bytes of all keys and values of a data point
    #[arg(long = "otlp-label-bytes", env = "SIGHTLINE_OTLP_LABEL_BYTES", default_value = "32KiB", value_parser = size)]
    pub label_bytes: usize,
    /// Bytes of a metric's name or unit, and of a scope's name or version
    #[arg(long = "otlp-name-bytes", env = "SIGHTLINE_OTLP_NAME_BYTES", default_value = "1KiB", value_parser = size)]
    pub name_bytes: usize,
    /// Bounds of a histogram, or quantiles of a summary; each becomes a series
    #[arg(long = "otlp-buckets", env = "SIGHTLINE_OTLP_BUCKETS", default_value_t = Limits::default().buckets)]
    pub buckets: usize,
    /// Bytes of the labels of all series that one point becomes
    #[arg(long = "otlp-series-bytes", env = "SIGHTLINE_OTLP_SERIES_BYTES", default_value = "2MiB", value_parser = size)]
    pub series_bytes: usize,
    /// Bytes of a data point or a log record
    #[arg(long = "otlp-item-bytes", env = "SIGHTLINE_OTLP_ITEM_BYTES", default_value = "256KiB", value_parser = size)]
    pub item_bytes: usize,
    /// Bytes of a resource, of a scope, and of a metric without its points, each
    #[arg(long = "otlp-header-bytes", env = "SIGHTLINE_OTLP_HEADER_BYTES", default_value = "64KiB", value_parser = size)]
    pub header_bytes: usize,
}

fn size(text: &str) -> Result<usize, String> {
    usize::try_from(settings::bytes(text)?).map_err(|_| format!("`{text}` is more than this machine can address"))
}

impl Otlp {
    /// The limits of the walk over a request.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            resources: self.resources,
            scopes: self.scopes,
            items: self.items,
            point_attributes: self.point_attributes,
            record_attributes: self.record_attributes,
            key_bytes: self.key_bytes,
            value_bytes: self.value_bytes,
            label_bytes: self.label_bytes,
            name_bytes: self.name_bytes,
            buckets: self.buckets,
            series_bytes: self.series_bytes,
            item_bytes: self.item_bytes,
            header_bytes: self.header_bytes,
        }
    }

    /// What cannot work.
    pub(super) fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let limits = self.limits();
        if limits.point_attributes > otlp::MOST_POINT_ATTRIBUTES {
            wrong.push(format!(
                "SIGHTLINE_OTLP_POINT_ATTRIBUTES must be at most {}: a series has no room for more",
                otlp::MOST_POINT_ATTRIBUTES
            ));
        }
        if (limits.items as u64) < MAX_ITEMS {
            wrong.push(format!(
                "SIGHTLINE_OTLP_ITEMS must be at least {MAX_ITEMS}: clients drop what is refused for its number of items"
            ));
        }
        if crate::intake::too_large_for_an_envelope(&limits) {
            wrong.push(
                "SIGHTLINE_OTLP_ITEM_BYTES and three times SIGHTLINE_OTLP_HEADER_BYTES must fit into 509KiB together, \
                 since an envelope has at most 512KiB"
                    .to_owned(),
            );
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Only {
        #[command(flatten)]
        otlp: Otlp,
    }

    fn read(arguments: &[&str]) -> Otlp {
        Only::parse_from(["test"].iter().chain(arguments)).otlp
    }

    #[test]
    fn the_defaults_are_those_of_the_library_and_work() {
        let otlp = read(&[]);
        assert_eq!(otlp.limits(), Limits::default());
        assert_eq!(otlp.check(), Vec::<String>::new());
    }

    #[test]
    fn what_no_envelope_or_series_could_hold_is_refused() {
        assert_eq!(read(&["--otlp-point-attributes", "21"]).check().len(), 1);
        assert_eq!(read(&["--otlp-item-bytes", "400KiB"]).check().len(), 1);
        assert_eq!(read(&["--otlp-items", "1000"]).check().len(), 1);
    }
}
