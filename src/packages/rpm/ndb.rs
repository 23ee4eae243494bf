//! rpm's own `ndb`: slots that say where the blob of each package is.
//!
//! Documented by its source only: `lib/backend/ndb/rpmpkg.c` of <https://github.com/rpm-software-management/rpm>.

use super::{Broken, le32};

const HEADER_MAGIC: [u8; 4] = *b"RpmP";
const SLOT_MAGIC: [u8; 4] = *b"Slot";
const BLOB_MAGIC: [u8; 4] = *b"BlbS";
/// Bytes of the header of the file, of a slot and of the header of a blob; blobs lie at multiples of the last.
const HEADER: usize = 32;
const UNIT: usize = 16;
const PAGE: usize = 4096;

pub(super) fn blobs(bytes: &[u8], found: &mut dyn FnMut(&[u8])) -> Result<(), Broken> {
    let broken = |at, what| Broken { at, what };
    let number = |at: usize| {
        let number = le32(bytes, at).and_then(|number| usize::try_from(number).ok());
        number.ok_or_else(|| broken(at, "it ends too early"))
    };
    if !bytes.starts_with(&HEADER_MAGIC) || number(4)? != 0 {
        return Err(broken(0, "it is no ndb file of version 0"));
    }
    let end = number(12)?.checked_mul(PAGE).filter(|end| *end <= bytes.len());
    let end = end.ok_or_else(|| broken(12, "it claims more slots than it holds"))?;
    let mut left = bytes.len();
    for at in (HEADER..end).step_by(UNIT) {
        if bytes.get(at..at + 4) != Some(&SLOT_MAGIC) {
            return Err(broken(at, "a slot is missing"));
        }
        let package = number(at + 4)?;
        if package == 0 {
            continue;
        }
        let blob = number(at + 8)?
            .checked_mul(UNIT)
            .ok_or_else(|| broken(at, "its blob is too far"))?;
        if bytes.get(blob..blob.saturating_add(4)) != Some(&BLOB_MAGIC) || number(blob + 4)? != package {
            return Err(broken(at, "its blob is not where it should be"));
        }
        let length = number(blob + 12)?;
        let start = blob + UNIT;
        let data = start.checked_add(length).and_then(|end| bytes.get(start..end));
        // Blobs that overlap could be read without end.
        let data = data
            .filter(|_| length <= left)
            .ok_or_else(|| broken(blob, "a blob is too long"))?;
        left -= length;
        found(data);
    }
    Ok(())
}
