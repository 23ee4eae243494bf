//! The header of an installed package, as it stands in the database: an index of tags and the store of their values.
//!
//! <https://rpm-software-management.github.io/rpm/manual/format_header.html>

use super::{Broken, be32};

pub(super) const NAME: u32 = 1000;
pub(super) const VERSION: u32 = 1001;
pub(super) const RELEASE: u32 = 1002;
pub(super) const EPOCH: u32 = 1003;
pub(super) const ARCH: u32 = 1022;
pub(super) const FILEDIGESTS: u32 = 1035;
pub(super) const FILEFLAGS: u32 = 1037;
pub(super) const DIRINDEXES: u32 = 1116;
pub(super) const BASENAMES: u32 = 1117;
pub(super) const DIRNAMES: u32 = 1118;
pub(super) const FILEDIGESTALGO: u32 = 5011;

/// Most entries of an index, as in rpm.
const MAX_ENTRIES: usize = 0xffff;
/// Bytes of an entry.
const ENTRY: usize = 16;
const INT32: u32 = 4;
const STRING: u32 = 6;
const STRING_ARRAY: u32 = 8;

/// A header whose index and store are within its bytes.
#[derive(Debug)]
pub(super) struct Header<'b> {
    index: &'b [u8],
    store: &'b [u8],
}

impl<'b> Header<'b> {
    pub(super) fn parse(bytes: &'b [u8]) -> Result<Self, Broken> {
        let broken = |at, what| Broken { at, what };
        let size = |at| {
            let size = be32(bytes, at).and_then(|size| usize::try_from(size).ok());
            size.ok_or_else(|| broken(at, "it ends too early"))
        };
        let (entries, length) = (size(0)?, size(4)?);
        if entries > MAX_ENTRIES {
            return Err(broken(0, "it claims more entries than rpm writes"));
        }
        let start = 8 + entries * ENTRY;
        let index = bytes
            .get(8..start)
            .ok_or_else(|| broken(8, "its index ends too early"))?;
        let store = start.checked_add(length).and_then(|end| bytes.get(start..end));
        let store = store.ok_or_else(|| broken(start, "its values end too early"))?;
        Ok(Self { index, store })
    }

    /// Type, store from the value on, and count of a tag.
    fn entry(&self, tag: u32) -> Option<(u32, &'b [u8], usize)> {
        let entry = self
            .index
            .chunks_exact(ENTRY)
            .find(|entry| be32(entry, 0) == Some(tag))?;
        let offset = usize::try_from(be32(entry, 8)?).ok()?;
        let count = usize::try_from(be32(entry, 12)?).ok()?;
        Some((be32(entry, 4)?, self.store.get(offset..)?, count))
    }

    /// The text of a tag.
    pub(super) fn text(&self, tag: u32) -> Option<&'b str> {
        let (kind, value, _) = self.entry(tag)?;
        (kind == STRING).then(|| texts(value, 1).next()).flatten()
    }

    /// The texts of a tag. One that is not UTF-8 is empty: it can name nothing in the tree.
    pub(super) fn texts(&self, tag: u32) -> impl Iterator<Item = &'b str> + use<'b> {
        let (value, count) = match self.entry(tag) {
            Some((STRING_ARRAY, value, count)) => (value, count),
            _ => (&[][..], 0),
        };
        texts(value, count)
    }

    /// The numbers of a tag, none where it has none.
    pub(super) fn numbers(&self, tag: u32) -> Numbers<'b> {
        match self.entry(tag) {
            Some((INT32, value, count)) => Numbers { value, count },
            _ => Numbers { value: &[], count: 0 },
        }
    }
}

/// The numbers of a tag.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbers<'b> {
    value: &'b [u8],
    count: usize,
}

impl Numbers<'_> {
    /// One of them.
    pub(super) fn get(&self, at: usize) -> Option<u32> {
        (at < self.count)
            .then(|| be32(self.value, at.checked_mul(4)?))
            .flatten()
    }
}

fn texts(value: &[u8], count: usize) -> impl Iterator<Item = &str> {
    let mut rest = value;
    (0..count).map_while(move |_| {
        let end = rest.iter().position(|byte| *byte == 0)?;
        let (text, after) = rest.split_at_checked(end)?;
        rest = after.get(1..)?;
        Some(std::str::from_utf8(text).unwrap_or_default())
    })
}
