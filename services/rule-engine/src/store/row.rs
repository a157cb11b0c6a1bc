//! A version of a rule as a row: the document whole, and beside it what queries look for.

use prost::Message as _;
use proto::rules::{Rule as Wire, RuleDocument};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::rule::Rule;

pub(super) const COLUMNS: &str = "rule_id, version, tenant, kind, document, evaluated_version, evaluated_revision, about_revision, created_at, updated_at";

/// The numbers of the document's fields that this version knows.
const KNOWN_FIELDS: std::ops::RangeInclusive<u64> = 1..=13;

/// A version of a rule as it is stored.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Which rule.
    pub id: Uuid,
    /// Which version of it.
    pub version: u64,
    /// Whose it is.
    pub tenant: String,
    /// Its kind's name, known here or not.
    pub kind: String,
    /// What people wrote, as far as this version knows its fields.
    pub document: RuleDocument,
    /// The document's bytes, with the fields that only a newer version knows.
    pub bytes: Vec<u8>,
    /// The version in which what decides was last changed.
    pub evaluated_version: u64,
    /// The revision that brought it.
    pub evaluated_revision: i64,
    /// The revision in which it was last changed what the rule is about.
    pub about_revision: i64,
    created_unix_nano: u64,
    updated_unix_nano: u64,
}

/// A version to be written.
pub(super) struct New<'a> {
    pub(super) id: Uuid,
    pub(super) version: u64,
    pub(super) tenant: &'a str,
    pub(super) document: &'a RuleDocument,
    pub(super) before: Option<&'a Stored>,
    pub(super) revision: i64,
}

/// A count, which the database keeps with a sign.
pub(super) fn number(row: &PgRow, column: &str) -> Result<u64, sqlx::Error> {
    let number: i64 = row.try_get(column)?;
    Ok(u64::try_from(number).unwrap_or(0))
}

pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn read(row: &PgRow) -> Result<Stored, sqlx::Error> {
    let bytes: Vec<u8> = row.try_get("document")?;
    // What cannot be decoded is a rule that this version does not understand; its bytes stay as they are.
    let document = RuleDocument::decode(bytes.as_slice()).unwrap_or_default();
    Ok(Stored {
        id: row.try_get("rule_id")?,
        version: number(row, "version")?,
        tenant: row.try_get("tenant")?,
        kind: row.try_get("kind")?,
        document,
        bytes,
        evaluated_version: number(row, "evaluated_version")?,
        evaluated_revision: row.try_get("evaluated_revision")?,
        about_revision: row.try_get("about_revision")?,
        created_unix_nano: unix_nano(row.try_get("created_at")?),
        updated_unix_nano: unix_nano(row.try_get("updated_at")?),
    })
}

impl Stored {
    /// As callers see it.
    #[must_use]
    pub fn wire(&self) -> Wire {
        Wire {
            id: self.id.to_string(),
            version: self.version,
            document: Some(self.document.clone()),
            created_unix_nano: self.created_unix_nano,
            updated_unix_nano: self.updated_unix_nano,
            evaluated_version: self.evaluated_version,
            kind: self.kind.clone(),
            bound: None,
        }
    }

    /// Ready to be evaluated. Takes time; not for an async thread.
    #[must_use]
    pub fn into_rule(self) -> Rule {
        Rule::new(self.id, self.version, self.evaluated_version, self.tenant, self.kind, self.document)
    }
}

/// Writes the version that is in force from its revision on; a new rule is created now.
pub(super) async fn insert(connection: &mut PgConnection, new: New<'_>) -> Result<(), sqlx::Error> {
    let decides = crate::document::evaluated_part(new.document);
    let same = new.before.filter(|before| crate::document::evaluated_part(&before.document) == decides);
    let (evaluated_version, evaluated_revision) =
        same.map_or((new.version, new.revision), |same| (same.evaluated_version, same.evaluated_revision));
    let about = crate::kinds::about(new.document);
    let same = new.before.filter(|before| crate::kinds::about(&before.document) == about);
    let about_revision = same.map_or(new.revision, |same| same.about_revision);
    let bytes = new.before.map_or_else(|| new.document.encode_to_vec(), |before| edited(&before.bytes, new.document));
    sqlx::query(
        "insert into rule_versions (rule_id, version, tenant, name, kind, document, evaluated_version,
             evaluated_revision, created_at, updated_at, since_revision, about_revision)
         values ($1, $2, $3, $4, $5, $6, $7, $8, coalesce($9, now()), now(), $10, $11)",
    )
    .bind(new.id)
    .bind(signed(new.version))
    .bind(new.tenant)
    .bind(&new.document.name)
    .bind(crate::kinds::name_of(new.document).unwrap_or_default())
    .bind(bytes)
    .bind(signed(evaluated_version))
    .bind(evaluated_revision)
    .bind(new.before.map(|before| time_of(before.created_unix_nano)))
    .bind(new.revision)
    .bind(about_revision)
    .execute(connection)
    .await
    .map(|_| ())
}

/// A document after an edit by this version: fields that only a newer one knows stay. They come first, so that of a subject
/// of a newer kind and the one that was written now, the latter counts.
fn edited(before: &[u8], document: &RuleDocument) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(before.len());
    let mut rest = before;
    while let Some((number, length)) = field(rest) {
        let (one, behind) = rest.split_at(length);
        if !KNOWN_FIELDS.contains(&number) {
            bytes.extend_from_slice(one);
        }
        rest = behind;
    }
    bytes.extend(document.encode_to_vec());
    bytes
}

/// The number and the length of the first field; none at the end, or where these are no fields.
fn field(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut rest = bytes;
    let key = prost::encoding::decode_varint(&mut rest).ok()?;
    let content = match key & 7 {
        0 => {
            prost::encoding::decode_varint(&mut rest).ok()?;
            0
        }
        1 => 8,
        2 => usize::try_from(prost::encoding::decode_varint(&mut rest).ok()?).ok()?,
        5 => 4,
        _ => return None,
    };
    let length = (bytes.len() - rest.len()).checked_add(content)?;
    (length <= bytes.len()).then_some((key >> 3, length))
}

fn unix_nano(time: OffsetDateTime) -> u64 {
    u64::try_from(time.unix_timestamp_nanos()).unwrap_or(0)
}

fn time_of(unix_nano: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(unix_nano.into()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use proto::rules::rule_document::Subject;

    use super::*;

    #[test]
    fn an_edit_keeps_what_only_a_newer_version_knows() {
        let mut stored = RuleDocument { name: "before".into(), ..RuleDocument::default() }.encode_to_vec();
        // Field 20 of each wire type, as tomorrow's version may write it.
        let tomorrow: [&[u8]; 4] =
            [&[0xa0, 1, 150, 1], &[0xa1, 1, 1, 2, 3, 4, 5, 6, 7, 8], &[0xa2, 1, 2, 7, 7], &[0xa5, 1, 1, 2, 3, 4]];
        tomorrow.iter().for_each(|field| stored.extend_from_slice(field));
        let document = RuleDocument {
            name: "after".into(),
            subject: Some(Subject::Metric("m".into())),
            ..RuleDocument::default()
        };
        let bytes = edited(&stored, &document);
        assert_eq!(RuleDocument::decode(bytes.as_slice()).unwrap(), document);
        assert!(bytes.starts_with(&tomorrow.concat()), "{bytes:?}");
        assert_eq!(edited(&[0xa2, 1, 200], &document), document.encode_to_vec(), "damaged bytes are no fields");
    }

    #[test]
    fn every_field_of_the_document_is_known() {
        let descriptor = include_str!("../../../../proto/sightline/rules/v1/rules.proto");
        let message = descriptor.split("message RuleDocument {").nth(1).unwrap().split("\n}").next().unwrap();
        let numbers =
            message.lines().filter_map(|line| line.trim().strip_suffix(';')?.rsplit_once(" = ")?.1.parse().ok());
        assert_eq!(numbers.max(), Some(*KNOWN_FIELDS.end()));
    }
}
