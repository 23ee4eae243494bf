//! Functions of a Go program, from the table that its runtime uses for stack traces; stripping leaves it in place.
//!
//! Layouts: `runtime.pcHeader` of Go 1.2, 1.16, 1.18 and 1.20.

use super::Error;
use super::elf::Elf;

/// Most functions of one file, with what looked like the beginning of a table and was none. A Go program of 120 megabytes has
/// 140 thousand.
const MAX_FUNCTIONS: u64 = 1 << 19;
/// Longest name that is kept.
const MAX_NAME: usize = 256;

/// A Go function.
#[derive(Debug, Clone, Copy)]
pub(super) struct GoFunction<'a> {
    pub start: u32,
    pub name: &'a [u8],
}

/// The functions of a Go program.
#[derive(Debug)]
pub(super) struct Table<'a> {
    /// Sorted by address.
    pub functions: Vec<GoFunction<'a>>,
    /// Where the table lies.
    pub place: (u32, u32),
}

/// The table of a Go program; none in other files.
///
/// # Errors
/// More than [`MAX_FUNCTIONS`].
pub(super) fn find<'a>(elf: &Elf<'a>) -> Result<Option<Table<'a>>, Error> {
    let mut left = MAX_FUNCTIONS;
    let mut read = |place: u32| -> Result<Option<Vec<GoFunction<'a>>>, Error> {
        let Some(layout) = layout(elf, place) else {
            return Ok(None);
        };
        let rest = left.checked_sub(layout.count);
        let most = usize::try_from(MAX_FUNCTIONS).unwrap_or(usize::MAX);
        left = rest.ok_or(Error::TooMany("functions of Go", most))?;
        Ok(functions(elf, &layout))
    };
    if let Some(section) = elf
        .section(b".gopclntab")
        .or_else(|| elf.section(b".data.rel.ro.gopclntab"))
    {
        let place = (section.start, section.start.saturating_add(section.size));
        return Ok(read(section.start)?.map(|functions| Table { functions, place }));
    }
    // Without section headers: the header's fixed bytes, at an aligned address of read-only data.
    for segment in elf.segments.iter().filter(|segment| !segment.executable) {
        for (index, word) in segment.bytes.chunks_exact(8).enumerate() {
            if matches!(word, [0xfa | 0xfb | 0xf0 | 0xf1, 0xff, 0xff, 0xff, 0, 0, 1 | 4, 8]) {
                let place = segment.start + u32::try_from(index * 8).unwrap_or_default();
                if let Some(functions) = read(place)?.filter(|functions| functions.len() > 16) {
                    let place = (place, segment.end);
                    return Ok(Some(Table { functions, place }));
                }
            }
        }
    }
    Ok(None)
}

/// Whether a function of Go's runtime never comes back to its caller. Compilers put its calls at the end of a function,
/// in front of code that other paths reach.
pub(super) fn never_returns(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 9] = [
        b"runtime.throw",
        b"runtime.fatal",
        b"runtime.fatalthrow",
        b"runtime.gopanic",
        b"runtime.panicdivide",
        b"runtime.panicshift",
        b"runtime.panicoverflow",
        b"runtime.panicmem",
        b"runtime.panicnil",
    ];
    const STARTS: [&[u8]; 3] = [b"runtime.panicIndex", b"runtime.panicSlice", b"runtime.goPanic"];
    NAMES.contains(&name) || STARTS.iter().any(|start| name.starts_with(start))
}

/// What the header of a table says.
struct Layout<'a> {
    data: &'a [u8],
    magic: u32,
    count: u64,
    text: u64,
    names: u64,
    entries: u64,
    /// Fields of the table of functions are addresses, not offsets.
    wide: bool,
}

fn layout<'a>(elf: &Elf<'a>, place: u32) -> Option<Layout<'a>> {
    let data = elf.rest(place)?;
    let word = |index: usize| -> Option<u64> {
        let at = 8 + index * 8;
        data.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
    };
    let magic = u32::from_le_bytes(data.get(..4)?.try_into().ok()?);
    // Count, text start, offset of names, offset of the function table, and width of its fields.
    let (count, text, names, entries, wide) = match magic {
        0xffff_fffb => (word(0)?, 0, 0, 16, true),
        0xffff_fffa => (word(0)?, 0, word(2)?, word(6)?, true),
        0xffff_fff0 | 0xffff_fff1 => (word(0)?, word(2)?, word(3)?, word(7)?, false),
        _ => return None,
    };
    Some(Layout {
        data,
        magic,
        count,
        text,
        names,
        entries,
        wide,
    })
}

fn functions<'a>(elf: &Elf<'a>, layout: &Layout<'a>) -> Option<Vec<GoFunction<'a>>> {
    let Layout {
        data,
        magic,
        count,
        text,
        names,
        entries,
        wide,
    } = *layout;
    // The linker writes the text start with a relocation, or leaves it to the loader in later versions.
    let text = if text == 0 && !wide {
        let section = elf.section(b".text")?;
        u64::from(section.start) + elf.base
    } else {
        text
    };
    let entries = data.get(usize::try_from(entries).ok()?..)?;
    let width = if wide { 8 } else { 4 };
    let read = |at: usize| -> Option<u64> {
        let bytes = entries.get(at..at.checked_add(width)?)?;
        Some(match width {
            8 => u64::from_le_bytes(bytes.try_into().ok()?),
            _ => u64::from(u32::from_le_bytes(bytes.try_into().ok()?)),
        })
    };
    let mut functions = Vec::new();
    for index in 0..usize::try_from(count).ok()? {
        let (offset, info) = (read(index * 2 * width)?, read((index * 2 + 1) * width)?);
        let Some(start) = elf.address(text.checked_add(offset)?) else {
            continue;
        };
        if !elf.is_code(start) {
            continue;
        }
        // In the oldest layout an entry's information is counted from the header, later from the table.
        let from = if magic == 0xffff_fffb { data } else { entries };
        let name = usize::try_from(info)
            .ok()
            .and_then(|info| from.get(info.checked_add(width)?..info.checked_add(width + 4)?))
            .and_then(|bytes| bytes.try_into().ok())
            .and_then(|bytes| {
                data.get(
                    usize::try_from(names)
                        .ok()?
                        .checked_add(u32::from_le_bytes(bytes) as usize)?..,
                )
            })
            .and_then(|bytes| bytes.get(..bytes.len().min(MAX_NAME))?.split(|byte| *byte == 0).next())
            .unwrap_or_default();
        functions.push(GoFunction { start, name });
    }
    functions.sort_unstable_by_key(|function| function.start);
    Some(functions)
}
