//! The bounds of functions from `.eh_frame`, which stripped files keep.
//!
//! Only what bounds a function is read: start, length and whether it has landing pads. Format: Linux Standard Base
//! core specification, chapter "Exception Frames".

use std::collections::HashMap;

use super::elf::Elf;

/// Most frame entries of one file. LLVM as one library has 160 thousand.
const MAX_ENTRIES: usize = 1 << 19;

/// A function's code according to its frame entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Frame {
    pub start: u32,
    pub end: u32,
    /// Blocks of it may be entered by the unwinder.
    pub has_landing_pads: bool,
}

#[derive(Debug, Clone, Copy)]
struct Common {
    encoding: u8,
    landing: Option<u8>,
    augmented: bool,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn leb(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            if shift < 64 {
                value |= u64::from(byte & 0x7f) << shift;
            }
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A pointer without what it is relative to.
    fn pointer(&mut self, encoding: u8) -> Option<i64> {
        Some(match encoding & 0x0f {
            0x00 | 0x04 | 0x0c => i64::from_le_bytes(self.take(8)?.try_into().ok()?),
            0x02 => i64::from(u16::from_le_bytes(self.take(2)?.try_into().ok()?)),
            0x03 => i64::from(self.u32()?),
            0x0a => i64::from(i16::from_le_bytes(self.take(2)?.try_into().ok()?)),
            0x0b => i64::from(self.u32()?.cast_signed()),
            0x01 | 0x09 => self.leb()?.cast_signed(),
            _ => return None,
        })
    }
}

/// The functions that a file's frame entries bound, in the order of the entries. A broken entry ends the list.
pub(super) fn frames(elf: &Elf<'_>) -> Vec<Frame> {
    let mut frames = Vec::new();
    if let Some((place, size)) = place(elf)
        && let Some(bytes) = elf.rest(place)
    {
        let bytes = bytes.get(..size as usize).unwrap_or(bytes);
        read(elf, place, bytes, &mut frames);
    }
    frames
}

fn place(elf: &Elf<'_>) -> Option<(u32, u32)> {
    if let Some(section) = elf.section(b".eh_frame").filter(|section| section.size != 0) {
        return Some((section.start, section.size));
    }
    let header = elf.eh_frame_header?;
    let mut reader = Reader {
        bytes: elf.rest(header)?,
        at: 0,
    };
    let (version, encoding) = (reader.byte()?, reader.byte()?);
    reader.take(2)?;
    if version != 1 {
        return None;
    }
    let pointer = reader.pointer(encoding)?;
    let place = match encoding & 0x70 {
        0x00 => elf.address(pointer.cast_unsigned())?,
        0x10 => u32::try_from(i64::from(header) + 4 + pointer).ok()?,
        _ => return None,
    };
    Some((place, u32::MAX))
}

fn read(elf: &Elf<'_>, place: u32, bytes: &[u8], frames: &mut Vec<Frame>) -> Option<()> {
    let mut commons: HashMap<usize, Option<Common>> = HashMap::new();
    let mut reader = Reader { bytes, at: 0 };
    // Entries of either kind.
    for _ in 0..2 * MAX_ENTRIES {
        let start = reader.at;
        let length = reader.u32()?;
        if length == 0 {
            // A terminator; files linked from several parts may go on after it.
            if bytes.get(reader.at..)?.iter().take(4).all(|byte| *byte == 0) {
                return None;
            }
            continue;
        }
        if length == u32::MAX {
            return None;
        }
        let body = reader.at;
        let end = body.checked_add(length as usize)?;
        let mut entry = Reader {
            bytes: bytes.get(..end)?,
            at: body,
        };
        let id = entry.u32()?;
        reader.at = end;
        if id == 0 {
            commons.insert(start, common(&mut entry));
            continue;
        }
        let Some(parent) = body.checked_sub(id as usize) else {
            continue;
        };
        let common = *commons.entry(parent).or_insert_with(|| {
            let mut reader = Reader {
                bytes,
                at: parent.checked_add(8)?,
            };
            common(&mut reader)
        });
        let Some(common) = common else { continue };
        frames.extend(frame(elf, place, &mut entry, common));
    }
    Some(())
}

fn common(entry: &mut Reader<'_>) -> Option<Common> {
    let version = entry.byte()?;
    let mut augmentation = Vec::new();
    loop {
        match entry.byte()? {
            0 => break,
            letter if augmentation.len() < 16 => augmentation.push(letter),
            _ => return None,
        }
    }
    entry.leb()?;
    entry.leb()?;
    if version == 1 {
        entry.byte()?;
    } else {
        entry.leb()?;
    }
    let mut read = Common {
        encoding: 0,
        landing: None,
        augmented: false,
    };
    if augmentation.first() == Some(&b'z') {
        read.augmented = true;
        entry.leb()?;
        for letter in augmentation.iter().skip(1) {
            match letter {
                b'R' => read.encoding = entry.byte()?,
                b'L' => read.landing = Some(entry.byte()?),
                b'P' => {
                    let encoding = entry.byte()?;
                    entry.pointer(encoding)?;
                }
                _ => {}
            }
        }
    }
    Some(read)
}

fn frame(elf: &Elf<'_>, place: u32, entry: &mut Reader<'_>, common: Common) -> Option<Frame> {
    let here = i64::from(place) + i64::try_from(entry.at).ok()?;
    let pointer = entry.pointer(common.encoding)?;
    let start = match common.encoding & 0x70 {
        0x00 => elf.address(pointer.cast_unsigned())?,
        0x10 => u32::try_from(here.checked_add(pointer)?).ok()?,
        _ => return None,
    };
    let length = u32::try_from(entry.pointer(common.encoding & 0x0f)?).ok()?;
    let end = start.checked_add(length)?;
    let mut has_landing_pads = false;
    if common.augmented {
        entry.leb()?;
        if let Some(encoding) = common.landing.filter(|encoding| *encoding != 0xff) {
            has_landing_pads = entry.pointer(encoding)? != 0;
        }
    }
    (length != 0 && elf.is_code(start)).then_some(Frame {
        start,
        end,
        has_landing_pads,
    })
}
