//! As much of SQLite's file format as it takes to read one table whose last column is a blob.
//!
//! The database is read from memory, by code that cannot do anything else: no SQL, no journal, no locks, no C.
//! <https://www.sqlite.org/fileformat2.html>

use super::{Broken, be32};

const MAGIC: &[u8] = b"SQLite format 3\0";
/// The table of packages: `hnum INTEGER PRIMARY KEY, blob BLOB`.
const TABLE: &[u8] = b"Packages";
const LEAF: u8 = 0x0d;
const INTERIOR: u8 = 0x05;
/// Deepest tree that is followed; a full one of this depth is larger than any file.
const MAX_DEPTH: usize = 24;

/// Hands over the blob of every row of the table of packages.
pub(in crate::packages) fn blobs(bytes: &[u8], found: &mut dyn FnMut(&[u8])) -> Result<(), Broken> {
    let mut database = Database::open(bytes)?;
    let mut root = None;
    database.rows(1, 0, &mut |record| {
        let mut columns = record;
        // type, name, tbl_name, rootpage
        let (kind, name) = (columns.next(), columns.next());
        if kind == Some(Value::Bytes(b"table")) && name == Some(Value::Bytes(TABLE)) {
            root = match columns.nth(1) {
                Some(Value::Number(page)) => Some(page),
                _ => None,
            };
        }
    })?;
    let Some(root) = root else {
        return Err(Broken {
            at: 0,
            what: "it has no table of packages",
        });
    };
    database.rows(root, 0, &mut |record| {
        if let Some(Value::Bytes(blob)) = record.last() {
            found(blob);
        }
    })
}

struct Database<'b> {
    bytes: &'b [u8],
    page: usize,
    usable: usize,
    /// Pages of the trees that may still be read: what is shared or goes in a circle ends here.
    pages: usize,
    /// Bytes of rows that may still be read: rows that overlap could be read without end.
    rows: usize,
}

impl<'b> Database<'b> {
    fn open(bytes: &'b [u8]) -> Result<Self, Broken> {
        let broken = |what| Broken { at: 0, what };
        let header = bytes.get(..100).filter(|header| header.starts_with(MAGIC));
        let header = header.ok_or_else(|| broken("it is no SQLite database"))?;
        let size = |at: usize| match header.get(at..at + 2) {
            Some(&[high, low]) => usize::from(u16::from_be_bytes([high, low])),
            _ => 0,
        };
        let page = if size(16) == 1 { 1 << 16 } else { size(16) };
        let reserved = header.get(20).map_or(0, |reserved| usize::from(*reserved));
        if !page.is_power_of_two() || page < 512 || page - reserved < 480 {
            return Err(broken("its page size is none"));
        }
        // Older versions of SQLite wrote no count.
        let pages = be32(header, 28).map_or(0, |pages| pages as usize);
        if pages.checked_mul(page).is_none_or(|length| length > bytes.len()) {
            return Err(broken("it is cut short"));
        }
        Ok(Self {
            bytes,
            page,
            usable: page - reserved,
            pages: bytes.len() / page,
            rows: bytes.len(),
        })
    }

    /// A page by its number, and where it begins.
    fn page(&self, number: usize) -> Result<(usize, &'b [u8]), Broken> {
        let start = number.checked_sub(1).and_then(|index| index.checked_mul(self.page));
        let start = start.unwrap_or(usize::MAX);
        let page = start.checked_add(self.page).and_then(|end| self.bytes.get(start..end));
        let page = page.and_then(|page| page.get(..self.usable));
        page.map(|page| (start, page)).ok_or(Broken {
            at: start.min(self.bytes.len()),
            what: "a page is missing",
        })
    }

    /// Walks the tree of a table and hands over each record.
    fn rows(&mut self, number: usize, depth: usize, found: &mut dyn FnMut(Columns<'_>)) -> Result<(), Broken> {
        let (start, page) = self.page(number)?;
        let broken = |what| Broken { at: start, what };
        self.pages = self
            .pages
            .checked_sub(1)
            .ok_or_else(|| broken("a page is used twice"))?;
        if depth > MAX_DEPTH {
            return Err(broken("its tree is too deep"));
        }
        // The first page begins with the header of the file.
        let header = if number == 1 { 100 } else { 0 };
        let short = |at: usize| match page.get(at..at + 2) {
            Some(&[high, low]) => Ok(usize::from(u16::from_be_bytes([high, low]))),
            _ => Err(broken("a page ends too early")),
        };
        let kind = page.get(header).copied();
        let cells = short(header + 3)?;
        let pointers = match kind {
            Some(LEAF) => header + 8,
            Some(INTERIOR) => header + 12,
            _ => return Err(broken("a page is not of a table")),
        };
        for cell in 0..cells {
            let at = short(pointers + 2 * cell)?;
            let cell = page.get(at..).ok_or_else(|| broken("a cell is outside of its page"))?;
            if kind == Some(INTERIOR) {
                let child = be32(cell, 0).ok_or_else(|| broken("a cell ends too early"))?;
                self.rows(child as usize, depth + 1, found)?;
            } else {
                let payload = self.payload(cell).ok_or_else(|| broken("a row is damaged"))?;
                found(Columns::of(&payload).ok_or_else(|| broken("a row has no columns"))?);
            }
        }
        if kind == Some(INTERIOR) {
            let last = be32(page, header + 8).ok_or_else(|| broken("a page ends too early"))?;
            self.rows(last as usize, depth + 1, found)?;
        }
        Ok(())
    }

    /// The whole payload of a row, gathered from its page and those that it overflows to.
    fn payload(&mut self, cell: &'b [u8]) -> Option<std::borrow::Cow<'b, [u8]>> {
        let (length, rest) = varint(cell)?;
        let (_, rest) = varint(rest)?;
        let length = usize::try_from(length).ok()?;
        self.rows = self.rows.checked_sub(length)?;
        let most = self.usable - 35;
        if length <= most {
            return rest.get(..length).map(Into::into);
        }
        let least = (self.usable - 12) * 32 / 255 - 23;
        let fitting = least + (length - least) % (self.usable - 4);
        let local = if fitting <= most { fitting } else { least };
        let (here, next) = rest.split_at_checked(local)?;
        let mut next = be32(next, 0)?;
        let mut payload = Vec::with_capacity(length);
        payload.extend_from_slice(here);
        while payload.len() < length {
            let (_, page) = self.page(next as usize).ok()?;
            next = be32(page, 0)?;
            let content = page.get(4..)?;
            payload.extend_from_slice(content.get(..content.len().min(length - payload.len()))?);
        }
        Some(payload.into())
    }
}

/// What a column of a row holds, as far as it is of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value<'p> {
    Number(usize),
    Bytes(&'p [u8]),
    Other,
}

/// The columns of a row.
struct Columns<'p> {
    types: &'p [u8],
    values: &'p [u8],
}

impl<'p> Columns<'p> {
    fn of(payload: &'p [u8]) -> Option<Self> {
        let (length, after) = varint(payload)?;
        let (header, values) = payload.split_at_checked(usize::try_from(length).ok()?)?;
        let types = header.get(payload.len() - after.len()..)?;
        Some(Self { types, values })
    }
}

impl<'p> Iterator for Columns<'p> {
    type Item = Value<'p>;

    fn next(&mut self) -> Option<Value<'p>> {
        let (kind, rest) = varint(self.types)?;
        self.types = rest;
        let length = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return None,
            _ => (kind - 12) / 2,
        };
        let (value, rest) = self.values.split_at_checked(usize::try_from(length).ok()?)?;
        self.values = rest;
        Some(match kind {
            // Numbers here are of pages, which are not negative.
            1..=4 => Value::Number(value.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))),
            8 => Value::Number(0),
            9 => Value::Number(1),
            12.. => Value::Bytes(value),
            _ => Value::Other,
        })
    }
}

/// A number of one to nine bytes, and what follows it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0u64;
    for (at, byte) in bytes.iter().take(9).enumerate() {
        if at == 8 {
            return Some((number << 8 | u64::from(*byte), bytes.get(9..)?));
        }
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((number, bytes.get(at + 1..)?));
        }
    }
    None
}
