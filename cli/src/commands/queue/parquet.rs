//! The queue as an Apache Parquet file.
//!
//! The same columns as in the other formats, with the same text; what is a number there is one here, and what is
//! missing is null. Rows are written in groups, so that a longer queue needs no more memory.

use super::ExportLine;
use crate::failure::Failure;
use crate::output::stdout_for_bytes;
use parquet::basic::Compression;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::Value;
use std::io::{self, ErrorKind, Stdout, Write};
use std::sync::Arc;

const SCHEMA: &str = "
message item {
    required int64 index (INTEGER(64, false));
    required binary place (STRING);
    required binary txid (STRING);
    required int32 height (INTEGER(32, false));
    required binary block_hash (STRING);
    required int32 tx_index (INTEGER(32, false));
    required int64 due_height (INTEGER(64, false));
    required binary tx_hash (STRING);
    required binary leaf (STRING);
    optional int64 l2_number (INTEGER(64, false));
    optional binary l2_hash (STRING);
    optional binary outcome (STRING);
    optional binary reason (STRING);
    required binary tx (STRING);
}";

/// Rows of a group, unless their text is longer than [`GROUP_BYTES`].
const GROUP_ROWS: usize = 10_000;
const GROUP_BYTES: usize = 16 << 20;

/// Writes items.
pub struct ParquetWriter<W: Write + Send> {
    file: SerializedFileWriter<W>,
    rows: Vec<Value>,
    bytes: usize,
}

impl ParquetWriter<Stdout> {
    /// To stdout.
    ///
    /// # Errors
    /// It is a terminal.
    pub fn stdout() -> Result<Self, Failure> {
        Self::new(stdout_for_bytes("a Parquet file is nothing for a terminal; redirect it: > queue.parquet")?)
    }
}

impl<W: Write + Send> ParquetWriter<W> {
    fn new(sink: W) -> Result<Self, Failure> {
        let schema = Arc::new(parse_message_type(SCHEMA)?);
        let properties = WriterProperties::builder().set_compression(Compression::UNCOMPRESSED).build();
        let file = SerializedFileWriter::new(sink, schema, Arc::new(properties))?;
        Ok(Self { file, rows: Vec::new(), bytes: 0 })
    }

    /// Adds an item.
    pub fn push(&mut self, line: &ExportLine) -> Result<(), Failure> {
        self.bytes += line.line.tx.len();
        self.rows.push(serde_json::to_value(line).map_err(Failure::failed)?);
        if self.rows.len() >= GROUP_ROWS || self.bytes >= GROUP_BYTES {
            self.write_group()?;
        }
        Ok(())
    }

    /// Writes what is left, and the table of contents at the end.
    pub fn finish(mut self) -> Result<W, Failure> {
        if !self.rows.is_empty() {
            self.write_group()?;
        }
        Ok(self.file.into_inner()?)
    }

    fn write_group(&mut self) -> Result<(), Failure> {
        let schema = self.file.schema_descr().root_schema_ptr();
        let mut group = self.file.next_row_group()?;
        for field in schema.get_fields() {
            let Some(mut column) = group.next_column()? else { break };
            let values: Vec<_> = self.rows.iter().map(|row| row.get(field.name())).collect();
            // 1 where there is one; asked for of those that may be missing only.
            let levels: Option<Vec<i16>> =
                field.is_optional().then(|| values.iter().map(|value| i16::from(value.is_some())).collect());
            let numbers = values.iter().flatten().filter_map(|value| value.as_u64());
            match column.untyped() {
                // Parquet keeps unsigned numbers in signed ones of the same bits.
                ColumnWriter::Int32ColumnWriter(column) => {
                    let numbers: Vec<_> = numbers.map(|number| (number as u32).cast_signed()).collect();
                    column.write_batch(&numbers, levels.as_deref(), None)?
                }
                ColumnWriter::Int64ColumnWriter(column) => {
                    let numbers: Vec<_> = numbers.map(u64::cast_signed).collect();
                    column.write_batch(&numbers, levels.as_deref(), None)?
                }
                ColumnWriter::ByteArrayColumnWriter(column) => {
                    let texts: Vec<_> =
                        values.iter().flatten().filter_map(|value| value.as_str()).map(ByteArray::from).collect();
                    column.write_batch(&texts, levels.as_deref(), None)?
                }
                _ => return Err(Failure::failed("the Parquet schema has a column of another kind")),
            };
            column.close()?;
        }
        group.close()?;
        self.rows.clear();
        self.bytes = 0;
        Ok(())
    }
}

impl From<ParquetError> for Failure {
    fn from(error: ParquetError) -> Self {
        let closed = match &error {
            ParquetError::External(source) => {
                source.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
            }
            _ => false,
        };
        if closed { Failure::ClosedPipe } else { Failure::failed(format_args!("cannot write Parquet: {error}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Line;
    use super::*;
    use bitcoin::hashes::Hash;
    use bitcoin::{BlockHash, Txid};
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::RowAccessor;
    use sortie::primitives::Hash32;
    use std::fs::File;

    fn line(index: u64) -> ExportLine {
        let line = Line {
            index,
            place: format!("place {index}"),
            height: u32::MAX,
            block_hash: BlockHash::all_zeros(),
            tx_index: 7,
            due_height: u64::MAX,
            tx_hash: Hash32([1; 32]),
            tx: "ab".repeat(10),
            l2_number: index.is_multiple_of(2).then_some(index + 1),
            effect: None,
        };
        ExportLine { line, txid: Txid::all_zeros(), leaf: Hash32([2; 32]), l2_hash: None }
    }

    #[test]
    fn a_long_queue_is_written_in_groups_with_numbers_as_large_as_they_come() {
        let mut path = tempfile::NamedTempFile::new().expect("a file");
        let mut file = ParquetWriter::new(path.as_file_mut()).expect("a writer");
        let len = 2 * GROUP_ROWS as u64 + 5;
        for index in 0..len {
            file.push(&line(index)).expect("written");
            assert!(file.rows.len() < GROUP_ROWS);
        }
        file.finish().expect("written");
        let file = SerializedFileReader::new(File::open(&path).expect("a file")).expect("a Parquet file");
        assert_eq!(file.metadata().num_row_groups(), 3);
        let mut read = 0;
        for (index, row) in (0..).zip(file.get_row_iter(None).expect("rows")) {
            let row = row.expect("a row");
            assert_eq!((row.get_ulong(0).ok(), row.get_uint(3).ok()), (Some(index), Some(u32::MAX)));
            assert_eq!(row.get_string(1).ok(), Some(&format!("place {index}")));
            assert_eq!(row.get_ulong(6).ok(), Some(u64::MAX));
            assert_eq!(row.get_ulong(9).ok(), (index % 2 == 0).then_some(index + 1));
            read += 1;
        }
        assert_eq!(read, len);
    }
}
