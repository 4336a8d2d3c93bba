//! Values on their way to PostgreSQL and back.
//!
//! Statements have no names: each is sent with the types of its values and is parsed, bound and executed in one go. So it
//! costs one round trip on any connection, also through a pooler that gives every transaction another one.

use std::error::Error as StdError;

use postgres_types::private::BytesMut;
use postgres_types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::Row;
use tokio_postgres::types as postgres_types;

use super::Fault;
use crate::model::job::Text;
use crate::model::time::Timestamp;

/// A value and its type, as a statement takes it.
pub(super) type Bound<'a> = (&'a (dyn ToSql + Sync), Type);

/// What has one type in PostgreSQL.
pub(super) trait Value: ToSql + Sync {
    /// That type.
    const TYPE: Type;
}

macro_rules! typed {
    ($($rust:ty => $type:ident),* $(,)?) => {$(
        impl Value for $rust { const TYPE: Type = Type::$type; }
    )*};
}

typed! {
    i64 => INT8,
    bool => BOOL,
    Txt<'_> => TEXT,
    &[u8] => BYTEA,
    Option<i64> => INT8,
    Option<bool> => BOOL,
    Option<Txt<'_>> => TEXT,
    Vec<i64> => INT8_ARRAY,
    Vec<bool> => BOOL_ARRAY,
    Vec<Txt<'_>> => TEXT_ARRAY,
    Vec<String> => TEXT_ARRAY,
    Vec<&[u8]> => BYTEA_ARRAY,
    Vec<Option<i64>> => INT8_ARRAY,
    Vec<Option<bool>> => BOOL_ARRAY,
    Vec<Option<String>> => TEXT_ARRAY,
    Vec<Option<Vec<u8>>> => BYTEA_ARRAY,
    Vec<Option<Txt<'_>>> => TEXT_ARRAY,
}

/// A value with its type.
pub(super) fn bound<T: Value>(value: &T) -> Bound<'_> {
    (value, T::TYPE)
}

/// The values of a statement, `$1` first.
macro_rules! values {
    ($($value:expr),* $(,)?) => { &[$($crate::store::postgres::value::bound(&$value)),*][..] };
}
pub(super) use values;

/// A text. PostgreSQL has no place for U+0000 in one: it becomes U+FFFD, so that no single name can refuse a whole commit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Txt<'a>(pub(super) &'a str);

impl ToSql for Txt<'_> {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match self.0.contains('\0') {
            true => self.0.replace('\0', "\u{fffd}").to_sql(kind, out),
            false => self.0.to_sql(kind, out),
        }
    }

    fn accepts(kind: &Type) -> bool {
        <&str as ToSql>::accepts(kind)
    }

    to_sql_checked!();
}

/// A text that may be missing.
pub(super) fn maybe(text: Option<&str>) -> Option<Txt<'_>> {
    text.map(Txt)
}

/// A time that may be missing.
pub(super) fn micros(at: Option<Timestamp>) -> Option<i64> {
    at.map(Timestamp::micros)
}

/// A number of rows.
pub(super) fn many(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(super) fn string(row: &Row, column: &str) -> Result<String, Fault> {
    Ok(row.try_get(column)?)
}

pub(super) fn text(row: &Row, column: &str) -> Result<Option<Text>, Fault> {
    Ok(row.try_get::<_, Option<String>>(column)?.map(String::into_boxed_str))
}

pub(super) fn flag(row: &Row, column: &str) -> Result<bool, Fault> {
    Ok(row.try_get(column)?)
}

/// A number, cut to what the type holds.
pub(super) fn number<T: TryFrom<i64> + Default>(row: &Row, column: &str) -> Result<T, Fault> {
    Ok(T::try_from(row.try_get(column)?).unwrap_or_default())
}

pub(super) fn instant(row: &Row, column: &str) -> Result<Timestamp, Fault> {
    Ok(Timestamp::from_micros(row.try_get(column)?))
}

pub(super) fn time(row: &Row, column: &str) -> Result<Option<Timestamp>, Fault> {
    Ok(row.try_get::<_, Option<i64>>(column)?.map(Timestamp::from_micros))
}
