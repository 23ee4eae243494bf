//! An ELF file as the loader sees it: segments, dynamic section, symbols with versions, relocations.
//!
//! The file is untrusted. Every table is a bounded slice of it, every address is checked against the segments, and
//! section headers are only hints: a file without them is read through its program headers alone.

use std::ffi::CStr;

use object::elf::{self, FileHeader64, ProgramHeader64, Rela64, SectionHeader64, Sym64};
use object::pod::{Pod, from_bytes, slice_from_bytes};
use object::{LittleEndian as LE, U16, U32, U64};

use super::{Error, Machine};

/// Most bytes of machine code in one file.
pub const MAX_CODE: u32 = 96 << 20;
/// Most program headers that are read.
const MAX_SEGMENTS: usize = 64;
/// Where headers end at the latest when they lie together, as linkers put them.
const MAX_HEADERS: u32 = 4096;
/// Most section headers that are read.
const MAX_SECTIONS: usize = 1024;
/// Most symbols of one table.
const MAX_SYMBOLS: usize = 1 << 20;
/// Most relocations of one file.
const MAX_RELOCATIONS: usize = 2 << 20;
/// Most libraries that a file may need.
const MAX_NEEDED: usize = 512;
/// Longest name of a symbol, library or version.
const MAX_NAME: usize = 4096;
/// Most bytes of the names of all symbols.
const MAX_NAMES: usize = 96 << 20;

/// A part of the file as it lies in memory. Addresses count from the file's lowest one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment<'a> {
    pub start: u32,
    pub end: u32,
    pub bytes: &'a [u8],
    pub executable: bool,
    pub writable: bool,
}

/// A symbol that the dynamic linker, or the static symbol table, names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Symbol<'a> {
    pub name: &'a [u8],
    /// Version and whether it is the one that an unversioned reference gets.
    pub version: Option<&'a [u8]>,
    pub is_default: bool,
    pub address: u32,
    pub size: u32,
    pub defined: bool,
    pub local: bool,
    pub is_function: bool,
    pub is_object: bool,
    pub weak: bool,
}

/// What the loader writes into a word of memory.
#[derive(Debug, Clone, Copy)]
pub(super) enum Written {
    /// An address in this file.
    Address(u32),
    /// The result of a function of this file that the loader calls.
    Resolved(u32),
    /// The address of a dynamic symbol, through a slot that only code uses.
    Slot(u32),
    /// The address of a dynamic symbol, in data.
    Symbol(u32),
}

/// A relocation: where, and what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Relocation {
    pub place: u32,
    pub written: Written,
}

/// A section, as far as it says something that segments do not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Section<'a> {
    pub name: &'a [u8],
    pub kind: u32,
    pub flags: u64,
    pub start: u32,
    pub size: u32,
    pub offset: u64,
    pub link: u32,
    pub length: u64,
}

/// The addresses that a dynamic section names.
#[derive(Debug, Default, Clone)]
struct Dynamic {
    strings: Option<u32>,
    symbols: Option<u32>,
    versions: Option<u32>,
    defined_versions: Option<(u32, usize)>,
    needed_versions: Option<(u32, usize)>,
    hash: Option<u32>,
    gnu_hash: Option<u32>,
    tables: Vec<(u32, u64)>,
    relr: Option<(u32, u64)>,
}

/// An ELF file whose headers have been checked.
#[derive(Debug)]
pub(super) struct Elf<'a> {
    pub machine: Machine,
    /// Loaded at any address: code pointers in data have relocations.
    pub relocatable: bool,
    /// The lowest address of the file, to which every other address here is relative.
    pub base: u64,
    pub entry: Option<u32>,
    pub interpreter: Option<&'a [u8]>,
    pub build_id: Option<&'a [u8]>,
    pub soname: Option<&'a [u8]>,
    pub needed: Vec<&'a [u8]>,
    pub segments: Vec<Segment<'a>>,
    /// Where machine code may lie, sorted, not overlapping.
    pub code: Vec<(u32, u32)>,
    pub sections: Vec<Section<'a>>,
    pub eh_frame_header: Option<u32>,
    pub dynamic_symbols: Vec<Symbol<'a>>,
    pub static_symbols: Vec<Symbol<'a>>,
    pub relocations: Vec<Relocation>,
    /// Functions that the loader calls: DT_INIT, DT_FINI and the arrays' places.
    pub called: Vec<u32>,
    pub called_arrays: Vec<(u32, u32)>,
    /// Where the file's and the programs' headers end, when they lie at the lowest address.
    pub headers: u32,
    /// Where the dynamic symbols lie.
    pub symbols: (u32, u32),
    /// How many more bytes of names of symbols are read.
    names: usize,
    file: &'a [u8],
}

fn one<T: Pod>(data: &[u8], offset: usize) -> Option<&T> {
    from_bytes::<T>(data.get(offset..)?).ok().map(|(value, _)| value)
}

fn many<T: Pod>(data: &[u8], offset: u64, count: usize) -> Option<&[T]> {
    let data = data.get(usize::try_from(offset).ok()?..)?;
    slice_from_bytes::<T>(data, count).ok().map(|(values, _)| values)
}

fn text(data: &[u8]) -> Option<&[u8]> {
    let data = data.get(..data.len().min(MAX_NAME))?;
    CStr::from_bytes_until_nul(data).ok().map(CStr::to_bytes)
}

impl<'a> Elf<'a> {
    /// Reads the headers, symbols and relocations of a file.
    ///
    /// # Errors
    /// A file that is no 64-bit little-endian x86-64 or AArch64 program or library, contradicts itself, or passes a
    /// limit.
    pub fn parse(file: &'a [u8]) -> Result<Self, Error> {
        let header = one::<FileHeader64<LE>>(file, 0).ok_or(Error::NotElf)?;
        let ident = &header.e_ident;
        if ident.magic != elf::ELFMAG {
            return Err(Error::NotElf);
        }
        let relocatable = match header.e_type.get(LE) {
            elf::ET_DYN => true,
            elf::ET_EXEC => false,
            _ => return Err(Error::NotRun),
        };
        if ident.class != elf::ELFCLASS64 || ident.data != elf::ELFDATA2LSB {
            return Err(Error::Unsupported("it is not a 64-bit little-endian file".to_owned()));
        }
        let machine = match header.e_machine.get(LE) {
            elf::EM_X86_64 => Machine::X86_64,
            elf::EM_AARCH64 => Machine::Aarch64,
            other => {
                return Err(Error::Unsupported(format!(
                    "its machine is number {}, not x86-64 or AArch64",
                    other.0
                )));
            }
        };
        let count = usize::from(header.e_phnum.get(LE));
        if count > MAX_SEGMENTS {
            return Err(Error::TooMany("program headers", MAX_SEGMENTS));
        }
        let headers = many::<ProgramHeader64<LE>>(file, header.e_phoff.get(LE), count)
            .ok_or(Error::Truncated("program headers"))?;
        let (base, segments) = segments(file, headers)?;
        let mut this = Self {
            machine,
            relocatable,
            base,
            entry: None,
            interpreter: None,
            build_id: None,
            soname: None,
            needed: Vec::new(),
            segments,
            code: Vec::new(),
            sections: Vec::new(),
            eh_frame_header: None,
            dynamic_symbols: Vec::new(),
            static_symbols: Vec::new(),
            relocations: Vec::new(),
            called: Vec::new(),
            called_arrays: Vec::new(),
            headers: u32::try_from(header.e_phoff.get(LE))
                .ok()
                .and_then(|start| start.checked_add(u32::try_from(size_of_val(headers)).ok()?))
                .filter(|end| *end < MAX_HEADERS)
                .unwrap_or_default(),
            symbols: (0, 0),
            names: MAX_NAMES,
            file,
        };
        this.entry = this
            .address(header.e_entry.get(LE))
            .filter(|_| header.e_entry.get(LE) != 0);
        this.read_sections(header);
        this.find_code()?;
        let mut dynamic = None;
        for header in headers {
            let place = this.address(header.p_vaddr.get(LE));
            let bytes = usize::try_from(header.p_offset.get(LE))
                .ok()
                .and_then(|offset| file.get(offset..))
                .map(|rest| {
                    rest.get(..usize::try_from(header.p_filesz.get(LE)).unwrap_or(usize::MAX))
                        .unwrap_or(rest)
                });
            match header.p_type.get(LE) {
                elf::PT_INTERP => this.interpreter = bytes.and_then(text),
                elf::PT_GNU_EH_FRAME => this.eh_frame_header = place,
                elf::PT_NOTE => this.build_id = this.build_id.or_else(|| bytes.and_then(build_id)),
                elf::PT_DYNAMIC => dynamic = place.map(|place| (place, header.p_memsz.get(LE))),
                _ => {}
            }
        }
        let tables = match dynamic {
            Some((place, size)) => this.read_dynamic(place, size)?,
            None => Dynamic::default(),
        };
        this.read_dynamic_symbols(&tables)?;
        this.read_static_symbols()?;
        this.read_relocations(tables, dynamic.is_some())?;
        Ok(this)
    }

    /// The bytes in memory from `address` to the end of its segment's part of the file.
    pub fn rest(&self, address: u32) -> Option<&'a [u8]> {
        let segment = self.segment(address)?;
        segment.bytes.get((address - segment.start) as usize..)
    }

    /// `length` bytes of memory.
    pub fn bytes(&self, address: u32, length: usize) -> Option<&'a [u8]> {
        self.rest(address)?.get(..length)
    }

    /// A little-endian 32-bit word of memory.
    pub fn word32(&self, address: u32) -> Option<u32> {
        self.bytes(address, 4)?.try_into().ok().map(u32::from_le_bytes)
    }

    /// A little-endian 64-bit word of memory.
    pub fn word64(&self, address: u32) -> Option<u64> {
        self.bytes(address, 8)?.try_into().ok().map(u64::from_le_bytes)
    }

    /// The segment that holds an address.
    pub fn segment(&self, address: u32) -> Option<&Segment<'a>> {
        let after = self.segments.partition_point(|segment| segment.start <= address);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        (address < segment.end).then_some(segment)
    }

    /// An address of the file, counted from its base; none outside of all segments.
    pub fn address(&self, virtual_address: u64) -> Option<u32> {
        let address = u32::try_from(virtual_address.checked_sub(self.base)?).ok()?;
        self.segment(address).map(|_| address)
    }

    /// Whether machine code may lie at an address.
    pub fn is_code(&self, address: u32) -> bool {
        self.code_around(address).is_some()
    }

    /// The part of the machine code that holds an address.
    pub fn code_around(&self, address: u32) -> Option<(u32, u32)> {
        let after = self.code.partition_point(|(start, _)| *start <= address);
        let code = self.code.get(after.checked_sub(1)?).copied()?;
        (address < code.1).then_some(code)
    }

    /// The section of a name.
    pub fn section(&self, name: &[u8]) -> Option<&Section<'a>> {
        self.sections.iter().find(|section| section.name == name)
    }

    fn read_sections(&mut self, header: &FileHeader64<LE>) {
        let count = usize::from(header.e_shnum.get(LE)).min(MAX_SECTIONS);
        let Some(headers) = many::<SectionHeader64<LE>>(self.file, header.e_shoff.get(LE), count) else {
            return;
        };
        let names = headers
            .get(usize::from(header.e_shstrndx.get(LE).0))
            .and_then(|names| usize::try_from(names.sh_offset.get(LE)).ok())
            .and_then(|offset| self.file.get(offset..))
            .unwrap_or_default();
        for section in headers {
            let name = names
                .get(section.sh_name.get(LE) as usize..)
                .and_then(text)
                .unwrap_or_default();
            let loaded = section.sh_flags.get(LE).0 & elf::SHF_ALLOC.0 != 0;
            let start = if loaded {
                self.address(section.sh_addr.get(LE))
            } else {
                None
            };
            self.sections.push(Section {
                name,
                kind: section.sh_type.get(LE).0,
                flags: section.sh_flags.get(LE).0,
                start: start.unwrap_or_default(),
                size: start.map_or(0, |_| u32::try_from(section.sh_size.get(LE)).unwrap_or_default()),
                offset: section.sh_offset.get(LE),
                link: section.sh_link.get(LE),
                length: section.sh_size.get(LE),
            });
        }
    }

    /// Executable sections where they cover the entry point, else whole executable segments.
    fn find_code(&mut self) -> Result<(), Error> {
        let whole: Vec<(u32, u32)> = self
            .segments
            .iter()
            .filter(|segment| segment.executable)
            .map(|segment| (segment.start, segment.start + length(segment.bytes)))
            .collect();
        let mut sections = Vec::new();
        for section in &self.sections {
            if section.flags & elf::SHF_EXECINSTR.0 == 0 || section.size == 0 {
                continue;
            }
            for (start, end) in &whole {
                let from = section.start.max(*start);
                let to = section.start.saturating_add(section.size).min(*end);
                if from < to {
                    sections.push((from, to));
                }
            }
        }
        sections.sort_unstable();
        let disjoint = sections.windows(2).all(|pair| pair[0].1 <= pair[1].0);
        let holds_entry = |entry: u32| sections.iter().any(|(start, end)| *start <= entry && entry < *end);
        self.code = if disjoint && !sections.is_empty() && self.entry.is_none_or(holds_entry) {
            sections
        } else {
            whole
        };
        let total: u64 = self.code.iter().map(|(start, end)| u64::from(end - start)).sum();
        if total > u64::from(MAX_CODE) {
            return Err(Error::TooMany("bytes of machine code", MAX_CODE as usize));
        }
        Ok(())
    }

    fn read_dynamic(&mut self, place: u32, size: u64) -> Result<Dynamic, Error> {
        let bytes = self.rest(place).ok_or(Error::Truncated("the dynamic section"))?;
        let bytes = bytes
            .get(..usize::try_from(size).unwrap_or(usize::MAX))
            .unwrap_or(bytes);
        let entries = slice_from_bytes::<elf::Dyn64<LE>>(bytes, bytes.len() / size_of::<elf::Dyn64<LE>>())
            .map_err(|()| Error::Truncated("the dynamic section"))?
            .0;
        let mut tables = Dynamic::default();
        let (mut soname, mut needed) = (None, Vec::new());
        let (mut rela, mut rela_size, mut plt, mut plt_size, mut relr, mut relr_size) = (None, 0, None, 0, None, 0);
        let (mut defined, mut defined_count, mut required, mut required_count) = (None, 0, None, 0);
        let mut arrays = [(None, 0), (None, 0), (None, 0)];
        for entry in entries {
            let value = entry.d_val.get(LE);
            let place = self.address(value);
            match entry.d_tag.get(LE) {
                elf::DT_NULL => break,
                elf::DT_NEEDED if needed.len() == MAX_NEEDED => {
                    return Err(Error::TooMany("needed libraries", MAX_NEEDED));
                }
                elf::DT_NEEDED => needed.push(value),
                elf::DT_SONAME => soname = Some(value),
                elf::DT_STRTAB => tables.strings = place,
                elf::DT_SYMTAB => tables.symbols = place,
                elf::DT_HASH => tables.hash = place,
                elf::DT_GNU_HASH => tables.gnu_hash = place,
                elf::DT_VERSYM => tables.versions = place,
                elf::DT_VERDEF => defined = place,
                elf::DT_VERDEFNUM => defined_count = value,
                elf::DT_VERNEED => required = place,
                elf::DT_VERNEEDNUM => required_count = value,
                elf::DT_RELA => rela = place,
                elf::DT_RELASZ => rela_size = value,
                elf::DT_JMPREL => plt = place,
                elf::DT_PLTRELSZ => plt_size = value,
                elf::DT_RELR => relr = place,
                elf::DT_RELRSZ => relr_size = value,
                elf::DT_INIT | elf::DT_FINI => self.called.extend(place),
                elf::DT_INIT_ARRAY => arrays[0].0 = place,
                elf::DT_INIT_ARRAYSZ => arrays[0].1 = value,
                elf::DT_FINI_ARRAY => arrays[1].0 = place,
                elf::DT_FINI_ARRAYSZ => arrays[1].1 = value,
                elf::DT_PREINIT_ARRAY => arrays[2].0 = place,
                elf::DT_PREINIT_ARRAYSZ => arrays[2].1 = value,
                _ => {}
            }
        }
        for (place, size) in arrays {
            if let (Some(place), Ok(size)) = (place, u32::try_from(size)) {
                self.called_arrays.push((place, size));
            }
        }
        let strings = tables.strings.and_then(|place| self.rest(place)).unwrap_or_default();
        let name = |offset: u64| strings.get(usize::try_from(offset).ok()?..).and_then(text);
        self.soname = soname.and_then(name);
        self.needed = needed.into_iter().filter_map(name).collect();
        tables.tables.extend(rela.map(|place| (place, rela_size)));
        tables.tables.extend(plt.map(|place| (place, plt_size)));
        tables.relr = relr.map(|place| (place, relr_size));
        let bounded = |count: u64| usize::try_from(count).unwrap_or(usize::MAX).min(MAX_SYMBOLS);
        tables.defined_versions = defined.map(|place| (place, bounded(defined_count)));
        tables.needed_versions = required.map(|place| (place, bounded(required_count)));
        Ok(tables)
    }

    /// Version names by index, from what the file defines and what it needs.
    fn version_names(&self, tables: &Dynamic, strings: &'a [u8]) -> Vec<Option<&'a [u8]>> {
        let mut names: Vec<Option<&'a [u8]>> = Vec::new();
        let mut set = |index: u16, name: Option<&'a [u8]>| {
            let index = usize::from(index & 0x7fff);
            if names.len() <= index {
                names.resize(index + 1, None);
            }
            names[index] = name;
        };
        let name = |offset: u32| strings.get(offset as usize..).and_then(text);
        if let Some((place, count)) = tables.defined_versions {
            let data = self.rest(place).unwrap_or_default();
            let mut offset = 0usize;
            for _ in 0..count {
                let Some(version) = one::<elf::Verdef<LE>>(data, offset) else {
                    break;
                };
                if let Some(auxiliary) = one::<elf::Verdaux<LE>>(data, offset + version.vd_aux.get(LE) as usize) {
                    set(version.vd_ndx.get(LE).0, name(auxiliary.vda_name.get(LE)));
                }
                let next = version.vd_next.get(LE) as usize;
                if next == 0 {
                    break;
                }
                offset = offset.saturating_add(next);
            }
        }
        if let Some((place, count)) = tables.needed_versions {
            let data = self.rest(place).unwrap_or_default();
            let mut offset = 0usize;
            let mut left = usize::from(u16::MAX);
            for _ in 0..count {
                let Some(file) = one::<elf::Verneed<LE>>(data, offset) else {
                    break;
                };
                let mut at = offset.saturating_add(file.vn_aux.get(LE) as usize);
                for _ in 0..file.vn_cnt.get(LE) {
                    let Some(version) = one::<elf::Vernaux<LE>>(data, at) else {
                        break;
                    };
                    set(version.vna_other.get(LE).0, name(version.vna_name.get(LE)));
                    left -= 1;
                    let next = version.vna_next.get(LE) as usize;
                    if next == 0 || left == 0 {
                        break;
                    }
                    at = at.saturating_add(next);
                }
                let next = file.vn_next.get(LE) as usize;
                if next == 0 || left == 0 {
                    break;
                }
                offset = offset.saturating_add(next);
            }
        }
        names
    }

    /// How many dynamic symbols there are: the hash tables know, no header does.
    fn count_symbols(&self, tables: &Dynamic) -> usize {
        let section = self
            .sections
            .iter()
            .find(|section| section.kind == elf::SHT_DYNSYM.0 && Some(section.start) == tables.symbols);
        if let Some(section) = section {
            return section.size as usize / size_of::<Sym64<LE>>();
        }
        if let Some(count) = tables.hash.and_then(|place| self.word32(place.checked_add(4)?)) {
            return count as usize;
        }
        let Some(place) = tables.gnu_hash else { return 0 };
        let data = self.rest(place).unwrap_or_default();
        let Some(header) = many::<U32<LE>>(data, 0, 4) else {
            return 0;
        };
        let [buckets, first, bloom] = [0, 1, 2].map(|at| header[at].get(LE) as usize);
        let start = 16usize.saturating_add(bloom.saturating_mul(8));
        let Some(heads) = many::<U32<LE>>(data, start as u64, buckets) else {
            return 0;
        };
        let Some(last) = heads.iter().map(|head| head.get(LE) as usize).max() else {
            return first;
        };
        if last < first {
            return first;
        }
        let chains = start.saturating_add(buckets.saturating_mul(4));
        let mut index = last;
        while index < MAX_SYMBOLS {
            let at = chains.saturating_add((index - first).saturating_mul(4));
            match one::<U32<LE>>(data, at) {
                Some(hash) if hash.get(LE) & 1 == 0 => index += 1,
                _ => break,
            }
        }
        index.saturating_add(1)
    }

    fn symbol(&mut self, symbol: &Sym64<LE>, strings: &'a [u8]) -> Result<Symbol<'a>, Error> {
        let name = strings
            .get(symbol.st_name.get(LE) as usize..)
            .and_then(text)
            .unwrap_or_default();
        let left = self.names.checked_sub(name.len());
        self.names = left.ok_or(Error::TooMany("bytes of names of symbols", MAX_NAMES))?;
        let kind = symbol.st_type();
        let defined = symbol.st_shndx.get(LE) != elf::SHN_UNDEF;
        let address = self.address(symbol.st_value.get(LE));
        Ok(Symbol {
            name,
            version: None,
            is_default: true,
            address: address.unwrap_or_default(),
            size: u32::try_from(symbol.st_size.get(LE)).unwrap_or_default(),
            defined: defined && address.is_some() && kind != elf::STT_TLS,
            local: symbol.st_bind() == elf::STB_LOCAL,
            is_function: matches!(kind, elf::STT_FUNC | elf::STT_GNU_IFUNC),
            is_object: kind == elf::STT_OBJECT,
            weak: symbol.st_bind() == elf::STB_WEAK,
        })
    }

    fn read_dynamic_symbols(&mut self, tables: &Dynamic) -> Result<(), Error> {
        let (Some(place), Some(strings)) = (tables.symbols, tables.strings) else {
            return Ok(());
        };
        let strings = self.rest(strings).unwrap_or_default();
        let data = self.rest(place).unwrap_or_default();
        let count = self.count_symbols(tables).min(data.len() / size_of::<Sym64<LE>>());
        if count > MAX_SYMBOLS {
            return Err(Error::TooMany("dynamic symbols", MAX_SYMBOLS));
        }
        let symbols = many::<Sym64<LE>>(data, 0, count).ok_or(Error::Truncated("the dynamic symbols"))?;
        let size = u32::try_from(size_of_val(symbols)).unwrap_or(u32::MAX);
        self.symbols = (place, place.saturating_add(size));
        let names = self.version_names(tables, strings);
        let versions = tables
            .versions
            .and_then(|place| self.rest(place))
            .and_then(|data| many::<U16<LE>>(data, 0, count.min(data.len() / 2)))
            .unwrap_or_default();
        let mut read = Vec::with_capacity(count);
        for (index, symbol) in symbols.iter().enumerate() {
            let mut symbol = self.symbol(symbol, strings)?;
            if let Some(version) = versions.get(index) {
                let version = version.get(LE);
                symbol.is_default = version & 0x8000 == 0;
                // 0 is local, 1 is the file's own base version: no name to match.
                if version & 0x7fff > 1 {
                    symbol.version = names.get(usize::from(version & 0x7fff)).copied().flatten();
                }
            }
            read.push(symbol);
        }
        self.dynamic_symbols = read;
        Ok(())
    }

    fn read_static_symbols(&mut self) -> Result<(), Error> {
        let Some(table) = self.sections.iter().find(|section| section.kind == elf::SHT_SYMTAB.0) else {
            return Ok(());
        };
        let count = usize::try_from(table.length).unwrap_or(usize::MAX) / size_of::<Sym64<LE>>();
        if count > MAX_SYMBOLS {
            return Err(Error::TooMany("symbols", MAX_SYMBOLS));
        }
        let strings = self
            .sections
            .get(table.link as usize)
            .and_then(|section| usize::try_from(section.offset).ok())
            .and_then(|offset| self.file.get(offset..))
            .unwrap_or_default();
        let Some(symbols) = many::<Sym64<LE>>(self.file, table.offset, count) else {
            return Ok(());
        };
        for symbol in symbols {
            let symbol = self.symbol(symbol, strings)?;
            if symbol.defined && (symbol.is_function || symbol.is_object) {
                self.static_symbols.push(symbol);
            }
        }
        Ok(())
    }

    fn read_relocations(&mut self, tables: Dynamic, dynamic: bool) -> Result<(), Error> {
        let mut places: Vec<(&'a [u8], u64)> = Vec::new();
        for (place, size) in tables.tables {
            places.extend(self.rest(place).map(|bytes| (bytes, size)));
        }
        if !dynamic {
            // A static program relocates itself through symbols that only its sections name.
            for section in &self.sections {
                if section.kind == elf::SHT_RELA.0 && section.flags & elf::SHF_ALLOC.0 != 0 {
                    places.extend(self.rest(section.start).map(|bytes| (bytes, u64::from(section.size))));
                }
            }
        }
        for (bytes, size) in places {
            let size = usize::try_from(size).unwrap_or(usize::MAX).min(bytes.len());
            let count = size / size_of::<Rela64<LE>>();
            if count.saturating_add(self.relocations.len()) > MAX_RELOCATIONS {
                return Err(Error::TooMany("relocations", MAX_RELOCATIONS));
            }
            let Some(relocations) = many::<Rela64<LE>>(bytes, 0, count) else {
                continue;
            };
            for relocation in relocations {
                let Some(place) = self.address(relocation.r_offset.get(LE)) else {
                    continue;
                };
                if let Some(written) = self.written(relocation) {
                    self.relocations.push(Relocation { place, written });
                }
            }
        }
        if let Some((place, size)) = tables.relr {
            self.read_relr(place, size)?;
        }
        Ok(())
    }

    fn written(&self, relocation: &Rela64<LE>) -> Option<Written> {
        let symbol = relocation.r_sym(LE, false);
        let addend = relocation.r_addend.get(LE).cast_unsigned();
        let kind = relocation.r_type(LE, false);
        let (relative, resolved, slots, words): (u32, u32, [u32; 2], [u32; 2]) = match self.machine {
            Machine::X86_64 => (
                elf::R_X86_64_RELATIVE.0,
                elf::R_X86_64_IRELATIVE.0,
                [elf::R_X86_64_GLOB_DAT.0, elf::R_X86_64_JUMP_SLOT.0],
                [elf::R_X86_64_64.0, elf::R_X86_64_TLSDESC.0],
            ),
            Machine::Aarch64 => (
                elf::R_AARCH64_RELATIVE.0,
                elf::R_AARCH64_IRELATIVE.0,
                [elf::R_AARCH64_GLOB_DAT.0, elf::R_AARCH64_JUMP_SLOT.0],
                [elf::R_AARCH64_ABS64.0, elf::R_AARCH64_TLSDESC.0],
            ),
        };
        let kind = kind.0;
        if kind == relative {
            return self.address(addend).map(Written::Address);
        }
        if kind == resolved {
            return self.address(addend).map(Written::Resolved);
        }
        if slots.contains(&kind) {
            return Some(Written::Slot(symbol));
        }
        if words[0] == kind {
            return Some(Written::Symbol(symbol));
        }
        None
    }

    /// RELR: an address, then bitmaps of the 63 words that follow it.
    fn read_relr(&mut self, place: u32, size: u64) -> Result<(), Error> {
        let bytes = self.rest(place).unwrap_or_default();
        let count = usize::try_from(size).unwrap_or(usize::MAX).min(bytes.len()) / 8;
        let Some(words) = many::<U64<LE>>(bytes, 0, count) else {
            return Ok(());
        };
        let mut at = 0u64;
        let mut places = Vec::new();
        for word in words {
            let word = word.get(LE);
            if word & 1 == 0 {
                places.push(word);
                at = word.wrapping_add(8);
            } else {
                places.extend(
                    (0..63)
                        .filter(|bit| word >> (bit + 1) & 1 == 1)
                        .map(|bit| at.wrapping_add(bit * 8)),
                );
                at = at.wrapping_add(63 * 8);
            }
            if places.len().saturating_add(self.relocations.len()) > MAX_RELOCATIONS {
                return Err(Error::TooMany("relocations", MAX_RELOCATIONS));
            }
        }
        for place in places {
            let Some(place) = self.address(place) else { continue };
            if let Some(target) = self.word64(place).and_then(|value| self.address(value)) {
                self.relocations.push(Relocation {
                    place,
                    written: Written::Address(target),
                });
            }
        }
        Ok(())
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

fn segments<'a>(file: &'a [u8], headers: &[ProgramHeader64<LE>]) -> Result<(u64, Vec<Segment<'a>>), Error> {
    let loads = || {
        headers
            .iter()
            .filter(|header| header.p_type.get(LE) == elf::PT_LOAD && header.p_memsz.get(LE) != 0)
    };
    let base = loads()
        .map(|header| header.p_vaddr.get(LE))
        .min()
        .ok_or_else(|| Error::Unsupported("nothing of it is loaded into memory".to_owned()))?;
    let mut segments = Vec::new();
    for header in loads() {
        let outside = || Error::Unsupported("its segments span more than 4 GiB".to_owned());
        let start = u32::try_from(header.p_vaddr.get(LE) - base).map_err(|_| outside())?;
        let size = u32::try_from(header.p_memsz.get(LE)).map_err(|_| outside())?;
        let end = start.checked_add(size).ok_or_else(outside)?;
        let offset = usize::try_from(header.p_offset.get(LE)).map_err(|_| outside())?;
        let kept = usize::try_from(header.p_filesz.get(LE).min(header.p_memsz.get(LE))).map_err(|_| outside())?;
        let bytes = offset
            .checked_add(kept)
            .and_then(|end| file.get(offset..end))
            .ok_or(Error::Truncated("a segment"))?;
        let flags = header.p_flags.get(LE).0;
        segments.push(Segment {
            start,
            end,
            bytes,
            executable: flags & elf::PF_X.0 != 0,
            writable: flags & elf::PF_W.0 != 0,
        });
    }
    segments.sort_unstable_by_key(|segment| segment.start);
    if segments.windows(2).any(|pair| pair[0].end > pair[1].start) {
        return Err(Error::Unsupported("its segments overlap".to_owned()));
    }
    Ok((base, segments))
}

/// The GNU build identifier among notes.
fn build_id(notes: &[u8]) -> Option<&[u8]> {
    let mut rest = notes;
    while let Some(header) = many::<U32<LE>>(rest, 0, 3) {
        let [name, size, kind] = [0, 1, 2].map(|at| header[at].get(LE));
        let (name_end, start) = (12 + name as usize, 12 + (name as usize).next_multiple_of(4));
        let end = start.checked_add(size as usize)?;
        if kind == 3 && rest.get(12..name_end)? == b"GNU\0" {
            return rest.get(start..end).filter(|id| id.len() <= 64);
        }
        rest = rest.get(end.next_multiple_of(4)..)?;
    }
    None
}
