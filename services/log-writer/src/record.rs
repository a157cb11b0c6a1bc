//! What is stored: parts of batches, with their rows.

use std::sync::Arc;

/// All rows of one part of one batch: stored together, once.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) tenant: Arc<str>,
    pub(crate) batch: [u8; 16],
    pub(crate) part: i32,
    pub(crate) content: Content,
}

#[derive(Debug)]
pub(crate) enum Content {
    Logs { resource: LogResource, records: Vec<LogRecord> },
    Processes(Snapshot),
}

impl Part {
    /// Items as the gateway counted them.
    pub(crate) fn items(&self) -> usize {
        match &self.content {
            Content::Logs { records, .. } => records.len(),
            Content::Processes(_) => 1,
        }
    }

    /// Rows that storing it writes.
    pub(crate) fn rows(&self) -> usize {
        match &self.content {
            Content::Logs { records, .. } => records.len(),
            Content::Processes(snapshot) => snapshot.processes.len() + 1,
        }
    }
}

/// Bytes of a row without its texts.
const ROW: usize = 150;

impl Part {
    /// What its rows come to, in bytes: what is said once in an envelope stands in every row.
    pub(crate) fn bytes(&self) -> usize {
        let each = ROW + self.tenant.len();
        match &self.content {
            Content::Logs { resource, records } => {
                let each = each + resource.id.len() + resource.host_name.len() + resource.service_name.len();
                resource.attributes.len() + records.iter().map(|record| each + record.bytes()).sum::<usize>()
            }
            Content::Processes(snapshot) => {
                let each = each + snapshot.resource_id.len();
                let bytes = |process: &proto::telemetry::Process| {
                    let labels = process.labels.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
                    each + process.user.len() + process.executable.len() + process.command_line.len() + labels
                };
                each + snapshot.processes.iter().map(bytes).sum::<usize>()
            }
        }
    }
}

impl LogRecord {
    fn bytes(&self) -> usize {
        self.source.len() + self.severity_text.len() + self.body.len() + self.attributes.len()
    }
}

/// The resource of a part's records.
#[derive(Debug, Clone)]
pub(crate) struct LogResource {
    /// Hash of `attributes`.
    pub(crate) reference: i64,
    pub(crate) id: String,
    pub(crate) host_name: String,
    pub(crate) service_name: String,
    /// A JSON object.
    pub(crate) attributes: String,
    /// A JSON object of texts: what selectors see.
    pub(crate) labels: String,
}

#[derive(Debug)]
pub(crate) struct LogRecord {
    pub(crate) index: i32,
    pub(crate) time_ns: i64,
    pub(crate) observed_ns: i64,
    pub(crate) source: Arc<str>,
    pub(crate) severity: i16,
    /// As the source wrote it.
    pub(crate) severity_text: String,
    pub(crate) body: String,
    /// A JSON object.
    pub(crate) attributes: String,
    pub(crate) trace_id: Vec<u8>,
    pub(crate) span_id: Vec<u8>,
}

/// Every process of a host at one moment, or a part of them.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) resource_id: String,
    pub(crate) agent_id: String,
    pub(crate) host_name: String,
    pub(crate) time_ns: i64,
    pub(crate) processes: Vec<proto::telemetry::Process>,
}
