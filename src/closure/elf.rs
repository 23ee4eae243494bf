//! What an ELF file asks for: its interpreter, its libraries and where to look for them, the functions that it imports,
//! and the texts in it that name files.
//!
//! Read in pieces, so that neither a large file nor one that lies about its tables costs memory.

use std::collections::BTreeSet;

use object::elf::{self, FileHeader32, FileHeader64};
use object::endian::Endianness;
use object::read::elf::{Dyn as _, FileHeader, ProgramHeader as _, Sym as _};

use super::space::{Reader, Space, What};
use crate::tree::join;

/// Most program headers, as many as a file has that the kernel starts.
const MAX_HEADERS: usize = 1024;
/// Most entries of the dynamic section.
const MAX_DYNAMIC: usize = 4096;
/// Most symbols that are looked at.
const MAX_SYMBOLS: usize = 1 << 20;
/// Largest table of the dynamic linker's strings.
const MAX_STRINGS: u64 = 64 << 20;
/// Longest name in that table.
const MAX_NAME: usize = 4096;
/// Bytes of one file that are searched for texts.
pub(super) const MAX_SEARCHED: u64 = 256 << 20;
/// Bytes that are searched at once.
const PIECE: usize = 1 << 20;
/// Longest text that is looked at as a whole.
const MAX_TEXT: usize = 4096;
/// Most different names that are taken from the texts of one file.
const MAX_FOUND: usize = 20_000;

/// Not in `object`'s tables under a name of the dynamic section.
const DF_1_PIE: u64 = 0x0800_0000;
const DF_1_NODEFLIB: u64 = 0x0800;

/// Directories of programs and of what they read, below the one that all of it was installed below.
const PREFIXED: &[&str] = &["bin", "lib", "lib64", "libexec", "sbin", "share"];

/// Functions that start a program of the caller's choice.
const STARTS: &[&str] = &[
    "execl",
    "execle",
    "execlp",
    "execv",
    "execve",
    "execveat",
    "execvp",
    "execvpe",
    "fexecve",
    "popen",
    "posix_spawn",
    "posix_spawnp",
    "system",
    "wordexp",
];
/// Functions that start a shell.
const SHELLS: &[&str] = &["popen", "system", "wordexp"];

/// Functions that find the program in `PATH`, those of the libraries that wrap them included.
const SEARCHES: &[&str] = &[
    "apr_proc_create",
    "execlp",
    "execvp",
    "execvpe",
    "g_find_program_in_path",
    "g_spawn_async",
    "g_spawn_async_with_pipes",
    "g_spawn_command_line_async",
    "g_spawn_command_line_sync",
    "g_spawn_sync",
    "g_subprocess_new",
    "g_subprocess_newv",
    "posix_spawnp",
    "uv_spawn",
];

/// Functions that load a library of the caller's choice.
const LOADS: &[&str] = &["dlopen", "dlmopen"];

/// Functions that say where a library lies, and functions that list a directory.
const LOCATES: &[&str] = &["dladdr", "dladdr1"];
const LISTS: &[&str] = &["glob", "glob64", "opendir", "scandir", "scandir64"];

/// What cannot be mixed in one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Abi {
    pub(super) wide: bool,
    pub(super) little: bool,
    pub(super) machine: u16,
}

/// What one ELF file says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Elf {
    pub(super) abi: Abi,
    /// It is started, not loaded into another program.
    pub(super) is_program: bool,
    /// It has a dynamic section.
    pub(super) is_dynamic: bool,
    pub(super) interpreter: Option<String>,
    pub(super) needed: Vec<String>,
    /// `DT_FILTER`, `DT_AUXILIARY`, `DT_AUDIT`, `DT_DEPAUDIT`: loaded where they exist.
    pub(super) optional: Vec<String>,
    pub(super) rpath: Vec<String>,
    pub(super) runpath: Vec<String>,
    /// The loader's own directories are not searched for it.
    pub(super) no_default: bool,
    /// Imported functions that start programs or load libraries, or that some rule asks for.
    pub(super) imports: BTreeSet<String>,
    /// It loads libraries by name.
    pub(super) loads: bool,
    /// It can ask where it lies.
    pub(super) locates: bool,
    /// It can list directories.
    pub(super) lists: bool,
    /// It starts programs.
    pub(super) starts: bool,
    /// It starts a shell through the C library.
    pub(super) starts_shell: bool,
    /// It starts programs that are found in `PATH`.
    pub(super) searches: bool,
    /// Bytes of it that are loaded and may hold texts, as ranges of the file.
    loaded: Vec<(u64, u64)>,
}

/// Texts in an ELF file that may name files.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Texts {
    /// Existing paths that a text names from its delimiter to its delimiter.
    pub(super) paths: BTreeSet<String>,
    /// Those of them with which a text or a word of it begins, and not the value of a setting: a program that records
    /// how it was built names its maker's tools.
    pub(super) started: BTreeSet<String>,
    /// Files and directories that some text begins with; the language does not end its texts.
    pub(super) prefixes: BTreeSet<String>,
    /// `lib….so…`.
    pub(super) libraries: BTreeSet<String>,
    /// Names of the caller's list.
    pub(super) names: BTreeSet<String>,
    /// Texts that look like a command with arguments.
    pub(super) commands: BTreeSet<String>,
    /// Its texts have no end: Go or Rust.
    pub(super) endless: bool,
    /// Not all of it was searched.
    pub(super) cut: bool,
}

/// Whether these are the first bytes of an ELF file.
pub(super) fn is_elf(head: &[u8]) -> bool {
    head.starts_with(b"\x7fELF")
}

/// Whether an ELF file with these first bytes is neither started nor loaded: an object file, which is for a linker, or
/// one without machine, which is for an interpreter.
pub(super) fn is_data(head: &[u8]) -> bool {
    let half = |at: usize| match (head.get(5), head.get(at..at + 2)) {
        (Some(2), Some(&[high, low])) => Some(u16::from_be_bytes([high, low])),
        (_, Some(&[low, high])) => Some(u16::from_le_bytes([low, high])),
        _ => None,
    };
    half(16) == Some(elf::ET_REL.0) || half(18) == Some(elf::EM_NONE.0)
}

/// Whether the kernel could start an ELF file: it is no object that is only ever loaded. `None` where its headers are
/// damaged.
pub(super) fn is_startable(reader: &Reader<'_>) -> Option<bool> {
    match reader.read(4, 1)?.first() {
        Some(1) => is_startable_as::<FileHeader32<Endianness>>(reader),
        Some(2) => is_startable_as::<FileHeader64<Endianness>>(reader),
        _ => None,
    }
}

fn is_startable_as<H: FileHeader<Endian = Endianness>>(reader: &Reader<'_>) -> Option<bool> {
    let header: H = *read_pods::<H>(reader, 0, 1)?.first()?;
    let endian = header.endian().ok()?;
    let count = usize::from(header.e_phnum(endian)).min(MAX_HEADERS);
    let headers: Vec<H::ProgramHeader> = read_pods(reader, header.e_phoff(endian).into(), count)?;
    let has = |kind| headers.iter().any(|part| part.p_type(endian) == kind);
    Some(header.e_type(endian) == elf::ET_EXEC || has(elf::PT_INTERP))
}

/// Reads an ELF file; `asked` are the imported functions that rules want to know of.
///
/// # Errors
/// What is wrong with it, in a few words.
pub(super) fn parse(reader: &Reader<'_>, asked: &BTreeSet<String>) -> Result<Elf, &'static str> {
    let ident = reader.read(0, 16).ok_or("it ends within its header")?;
    match ident.get(4) {
        Some(1) => parse_as::<FileHeader32<Endianness>>(reader, asked),
        Some(2) => parse_as::<FileHeader64<Endianness>>(reader, asked),
        _ => Err("it is neither of 32 nor of 64 bits"),
    }
}

fn read_pods<T: object::Pod + Copy>(reader: &Reader<'_>, offset: u64, count: usize) -> Option<Vec<T>> {
    let bytes = reader.read(offset, count.checked_mul(size_of::<T>())?)?;
    let (items, _) = object::pod::slice_from_bytes::<T>(&bytes, count).ok()?;
    Some(items.to_vec())
}

fn parse_as<H: FileHeader<Endian = Endianness>>(
    reader: &Reader<'_>,
    asked: &BTreeSet<String>,
) -> Result<Elf, &'static str> {
    let header: H = *read_pods::<H>(reader, 0, 1)
        .ok_or("it ends within its header")?
        .first()
        .ok_or("empty")?;
    let endian = header.endian().map_err(|_| "its byte order is unknown")?;
    let count = usize::from(header.e_phnum(endian));
    if count > MAX_HEADERS || usize::from(header.e_phentsize(endian)) != size_of::<H::ProgramHeader>() {
        return Err("its program headers have an impossible number or size");
    }
    let headers: Vec<H::ProgramHeader> =
        read_pods(reader, header.e_phoff(endian).into(), count).ok_or("it ends within its program headers")?;
    let kind = header.e_type(endian);
    let mut elf = Elf {
        abi: Abi {
            wide: header.is_type_64(),
            little: header.is_little_endian(),
            machine: header.e_machine(endian).0,
        },
        is_program: kind == elf::ET_EXEC,
        is_dynamic: false,
        interpreter: None,
        needed: Vec::new(),
        optional: Vec::new(),
        rpath: Vec::new(),
        runpath: Vec::new(),
        no_default: false,
        imports: BTreeSet::new(),
        loads: false,
        locates: false,
        lists: false,
        starts: false,
        starts_shell: false,
        searches: false,
        loaded: Vec::new(),
    };
    if kind != elf::ET_EXEC && kind != elf::ET_DYN {
        // Object files and core dumps are neither started nor loaded.
        return Ok(elf);
    }
    let mut dynamic = None;
    let mut segments = Vec::new();
    let (mut code, mut has_constants) = (Vec::new(), false);
    for part in &headers {
        let (offset, size): (u64, u64) = (part.p_offset(endian).into(), part.p_filesz(endian).into());
        match part.p_type(endian) {
            elf::PT_INTERP => {
                let length = usize::try_from(size).unwrap_or(usize::MAX);
                if length > MAX_NAME {
                    return Err("the name of its interpreter is too long");
                }
                let bytes = reader
                    .read(offset, length)
                    .ok_or("it ends within the name of its interpreter")?;
                let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
                let name = std::str::from_utf8(name).map_err(|_| "the name of its interpreter is not UTF-8")?;
                elf.interpreter = Some(name.to_owned());
                elf.is_program = true;
            }
            elf::PT_DYNAMIC => dynamic = Some((offset, size)),
            elf::PT_LOAD => {
                segments.push((part.p_vaddr(endian).into(), offset, size));
                let flags = part.p_flags(endian);
                let range = (offset, offset.saturating_add(size).min(reader.len()));
                if (flags & elf::PF_X).0 == 0 {
                    elf.loaded.push(range);
                    has_constants |= (flags & elf::PF_W).0 == 0;
                } else {
                    code.push(range);
                }
            }
            _ => {}
        }
    }
    // Where a linker keeps constants away from the code, there are no texts in the code.
    if !has_constants {
        elf.loaded.append(&mut code);
    }
    merge(&mut elf.loaded);
    match dynamic {
        Some((offset, size)) => {
            elf.is_dynamic = true;
            read_dynamic::<H>(reader, endian, (offset, size), &segments, &mut elf, asked)?;
        }
        None => elf.is_program = true,
    }
    Ok(elf)
}

/// Where an address lies in the file.
fn offset_of(segments: &[(u64, u64, u64)], address: u64) -> Option<u64> {
    segments
        .iter()
        .find(|(start, _, size)| address >= *start && address - start < *size)
        .and_then(|(start, offset, _)| offset.checked_add(address - start))
}

fn merge(ranges: &mut Vec<(u64, u64)>) {
    ranges.retain(|(start, end)| start < end);
    ranges.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (start, end) in ranges.drain(..) {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    *ranges = merged;
}

fn read_dynamic<H: FileHeader<Endian = Endianness>>(
    reader: &Reader<'_>,
    endian: Endianness,
    (offset, size): (u64, u64),
    segments: &[(u64, u64, u64)],
    elf: &mut Elf,
    asked: &BTreeSet<String>,
) -> Result<(), &'static str> {
    let count = usize::try_from(size).unwrap_or(usize::MAX) / size_of::<H::Dyn>().max(1);
    if count > MAX_DYNAMIC {
        return Err("its dynamic section is too large");
    }
    let entries: Vec<H::Dyn> = read_pods(reader, offset, count).ok_or("it ends within its dynamic section")?;
    let mut named = Vec::new();
    let (mut strings, mut length, mut symbols, mut hash, mut gnu_hash) = (None, 0, None, None, None);
    for entry in &entries {
        let value: u64 = entry.d_val(endian).into();
        match entry.d_tag(endian) {
            elf::DT_NULL => break,
            tag @ (elf::DT_NEEDED
            | elf::DT_RPATH
            | elf::DT_RUNPATH
            | elf::DT_AUXILIARY
            | elf::DT_FILTER
            | elf::DT_AUDIT
            | elf::DT_DEPAUDIT) => named.push((tag, value)),
            elf::DT_STRTAB => strings = Some(value),
            elf::DT_STRSZ => length = value,
            elf::DT_SYMTAB => symbols = Some(value),
            elf::DT_HASH => hash = Some(value),
            elf::DT_GNU_HASH => gnu_hash = Some(value),
            elf::DT_FLAGS_1 => {
                elf.is_program |= value & DF_1_PIE != 0;
                elf.no_default = value & DF_1_NODEFLIB != 0;
            }
            _ => {}
        }
    }
    let Some(address) = strings else {
        return if named.is_empty() {
            Ok(())
        } else {
            Err("it names libraries and has no table of names")
        };
    };
    if length > MAX_STRINGS {
        return Err("its table of names is too large");
    }
    let at = offset_of(segments, address).ok_or("its table of names lies outside of the file")?;
    let table = reader
        .read(at, usize::try_from(length).unwrap_or(usize::MAX))
        .ok_or("it ends within its table of names")?;
    let text = |at: u64| -> Option<&str> {
        let rest = table.get(usize::try_from(at).ok()?..)?;
        let end = rest.iter().take(MAX_NAME).position(|byte| *byte == 0)?;
        std::str::from_utf8(rest.get(..end)?).ok()
    };
    for (tag, at) in named {
        let name = text(at)
            .ok_or("the name of a library lies outside of its table")?
            .to_owned();
        let list = || name.split(':').filter(|part| !part.is_empty()).map(str::to_owned);
        match tag {
            elf::DT_NEEDED => elf.needed.push(name),
            elf::DT_RPATH => elf.rpath.extend(list()),
            elf::DT_RUNPATH => elf.runpath.extend(list()),
            elf::DT_AUDIT | elf::DT_DEPAUDIT => elf.optional.extend(list()),
            _ => elf.optional.push(name),
        }
    }
    let Some(symbols) = symbols else { return Ok(()) };
    let count = symbol_count(
        reader,
        endian,
        segments,
        symbols,
        address,
        size_of::<H::Sym>(),
        hash,
        gnu_hash,
    );
    let from = offset_of(segments, symbols).ok_or("its symbols lie outside of the file")?;
    let room = usize::try_from(reader.len().saturating_sub(from)).unwrap_or(usize::MAX) / size_of::<H::Sym>().max(1);
    let symbols: Vec<H::Sym> = read_pods(reader, from, count.min(room)).ok_or("it ends within its symbols")?;
    for symbol in symbols
        .iter()
        .filter(|symbol| symbol.st_shndx(endian) == elf::SHN_UNDEF)
    {
        let Some(name) = text(symbol.st_name(endian).into()) else {
            continue;
        };
        elf.locates |= LOCATES.contains(&name);
        elf.lists |= LISTS.contains(&name);
        if STARTS.contains(&name) || SEARCHES.contains(&name) || LOADS.contains(&name) || asked.contains(name) {
            elf.imports.insert(name.to_owned());
            elf.loads |= LOADS.contains(&name);
            elf.starts |= STARTS.contains(&name);
            elf.starts_shell |= SHELLS.contains(&name);
            elf.searches |= SEARCHES.contains(&name);
        }
    }
    Ok(())
}

/// How many symbols there are at most. No entry says so: the hash tables tell a part of it, the table of names that
/// linkers put behind the symbols the rest. One too many only adds a name that nobody asks for.
#[expect(clippy::too_many_arguments, reason = "they are the entries of one section")]
fn symbol_count(
    reader: &Reader<'_>,
    endian: Endianness,
    segments: &[(u64, u64, u64)],
    symbols: u64,
    strings: u64,
    size: usize,
    hash: Option<u64>,
    gnu_hash: Option<u64>,
) -> usize {
    let word = |address: u64, index: u64| -> Option<u32> {
        let at = offset_of(segments, address)?.checked_add(index * 4)?;
        let bytes: [u8; 4] = reader.read(at, 4)?.try_into().ok()?;
        Some(match endian {
            Endianness::Little => u32::from_le_bytes(bytes),
            Endianness::Big => u32::from_be_bytes(bytes),
        })
    };
    let counted = hash.and_then(|address| word(address, 1)).unwrap_or(0);
    let undefined = gnu_hash.and_then(|address| word(address, 1)).unwrap_or(0);
    let between = strings.saturating_sub(symbols) / (size.max(1) as u64);
    let most = u64::from(counted.max(undefined)).max(between);
    usize::try_from(most).unwrap_or(MAX_SYMBOLS).min(MAX_SYMBOLS)
}

/// What the texts of an ELF file are looked up in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) space: &'a Space<'a>,
    /// Names of what lies in the root directory.
    pub(super) top: &'a BTreeSet<String>,
    /// Texts that count when they stand alone.
    pub(super) names: &'a BTreeSet<String>,
    /// Where the file itself lies.
    pub(super) path: &'a str,
}

impl Known<'_> {
    /// The file that a relative path means to a program that finds its own by the directory that it was installed below
    /// (`share/h2o/helper` to `/usr/sbin/h2o`) or that it lies in (`../lib/helper`).
    fn beside(&self, text: &str) -> Option<String> {
        let (first, rest) = text.trim_start_matches('/').split_once('/')?;
        if rest.is_empty() || !text.bytes().all(is_path_byte) {
            return None;
        }
        let directory = self.path.rsplit_once('/')?.0;
        let below = if first == ".." {
            directory
        } else {
            let is_place = |part: &str| PREFIXED.contains(&part);
            if text.starts_with('/') || !is_place(first) {
                return None;
            }
            let mut above = directory;
            loop {
                let (parent, last) = above.rsplit_once('/')?;
                above = parent;
                if is_place(last) {
                    break above;
                }
            }
        };
        let path = join(below, text.trim_start_matches('/'));
        self.space.resolve(&path).is_some().then_some(path)
    }
}

/// Looks for names in the texts of an ELF file.
pub(super) fn texts(reader: &Reader<'_>, elf: &Elf, known: Known<'_>) -> Texts {
    let mut found = Texts {
        endless: !elf.is_dynamic,
        ..Texts::default()
    };
    let mut searched = 0;
    for (start, end) in &elf.loaded {
        let mut at = *start;
        let mut run: Vec<u8> = Vec::new();
        while at < *end {
            if searched >= MAX_SEARCHED {
                found.cut = true;
                return found;
            }
            let length = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
            let Some(bytes) = reader.read(at, length) else { break };
            at += length as u64;
            searched += length as u64;
            // Only what a piece ends with is copied.
            let mut texts = bytes.split(|byte| !(b' '..=b'~').contains(byte));
            run.extend_from_slice(texts.next().unwrap_or_default());
            let mut last = None;
            for text in texts {
                match last.replace(text) {
                    Some(whole) => take_all(whole, known, &mut found),
                    None => take_all(&std::mem::take(&mut run), known, &mut found),
                }
            }
            run.extend_from_slice(last.unwrap_or_default());
        }
        take_all(&run, known, &mut found);
    }
    found
}

fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/._+-@~".contains(&byte)
}

fn insert(set: &mut BTreeSet<String>, text: &str) {
    if set.len() < MAX_FOUND && !set.contains(text) {
        set.insert(text.to_owned());
    }
}

/// A text, in parts where it is too long to be looked at as a whole.
fn take_all(run: &[u8], known: Known<'_>, found: &mut Texts) {
    if run.len() > 1 {
        for part in run.chunks(MAX_TEXT) {
            take(part, known, found);
        }
    }
}

fn take(run: &[u8], known: Known<'_>, found: &mut Texts) {
    if run.len() < 2 {
        return;
    }
    let Ok(text) = std::str::from_utf8(run) else { return };
    if known.names.contains(text) {
        insert(&mut found.names, text);
    }
    if run.len() < 4 {
        return;
    }
    let Known { space, top, .. } = known;
    if let Some(path) = known.beside(text) {
        insert(&mut found.started, &path);
        insert(&mut found.paths, &path);
    }
    if text.contains(".so") {
        for token in text.split(|c: char| !c.is_ascii_alphanumeric() && !"._+-".contains(c)) {
            if token.starts_with("lib") && token.contains(".so") {
                insert(&mut found.libraries, token);
            }
        }
    }
    if text.contains("Go buildinf:") || text.contains("/rustc/") {
        found.endless = true;
    }
    // What takes the shell's place is the command.
    let command = text.strip_prefix("exec ").unwrap_or(text);
    if command.starts_with(|c: char| c.is_ascii_lowercase())
        && command
            .split_once(' ')
            .is_some_and(|(_, rest)| rest.starts_with(['-', '%', '"', '\'', '/', '>']))
    {
        insert(&mut found.commands, command);
    }
    for (at, _) in text.match_indices('/') {
        let rest = text.get(at..).unwrap_or("");
        let end = rest.bytes().position(|byte| !is_path_byte(byte)).unwrap_or(rest.len());
        let path = rest.get(..end).unwrap_or("");
        let mut parts = path.split('/').skip(1);
        let first = parts.next().unwrap_or("");
        if !top.contains(first) || parts.next().is_none_or(str::is_empty) {
            continue;
        }
        let before = at.checked_sub(1).and_then(|i| run.get(i));
        let begins = before.is_none_or(|byte| !is_path_byte(*byte));
        let path = path.trim_end_matches('.');
        if begins && space.resolve(path).is_some() {
            insert(&mut found.paths, path);
            if before.is_none_or(|byte| b" \"'(|&;!`".contains(byte)) {
                insert(&mut found.started, path);
            }
        } else if let Some(prefix) = longest_existing(path, space) {
            insert(&mut found.prefixes, &prefix);
        }
    }
}

/// The longest beginning of a text that names a file, or a directory that lies deep enough to be meant.
fn longest_existing(text: &str, space: &Space<'_>) -> Option<String> {
    let mut directory = String::new();
    for part in text.split('/').skip(1) {
        let next = format!("{directory}/{part}");
        if space.resolve(&next).is_some() {
            directory = next;
            continue;
        }
        return (1..part.len())
            .rev()
            .filter(|end| part.is_char_boundary(*end))
            .map(|end| format!("{directory}/{}", part.get(..end).unwrap_or("")))
            .find(|path| {
                space.resolve(path).is_some_and(|found| match space.what(&found.path) {
                    Some(What::File { .. }) => true,
                    Some(What::Directory) => found.path.matches('/').count() > 2,
                    _ => false,
                })
            });
    }
    Some(directory)
}
