//! What one ELF file contributes: functions, who calls whom, what is imported and exported, and the system calls.
//!
//! A summary depends on the file's bytes alone, so it is kept under the digest of the file and shared by all images.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::aarch64::{self, Aarch64};
use super::code::{self, Code, Decode, Event, Kind, Seeds, Slots};
use super::elf::{Elf, Written};
use super::facts::{self, DataObject, Facts};
use super::held;
use super::pclntab;
use super::slice::{Slice, Slicer, Why};
use super::unwind::{self, Frame};
use super::x86::{self, X86};
use super::{Error, Machine};

/// Changes whenever the same file would get another summary: part of the key under which summaries are kept.
pub const VERSION: u32 = 7;
/// Most bytes of function names that are kept.
const MAX_NAMES: usize = 16 << 20;
/// Longest name that is looked for among the strings of a file that calls `dlsym`.
const MAX_LOOKED_UP: usize = 65;
/// Most references between functions of one file, repeated ones included. A Go program of 120 megabytes has 1.2 million.
const MAX_EDGES: usize = 5 << 19;
/// Most functions that one file offers under one name.
const MAX_NAMESAKES: usize = 16;
/// Most bytes of strings that may be names of symbols.
const MAX_STRINGS: usize = 64 << 20;

/// How a function reaches another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reach {
    /// It calls it, jumps to it or runs on into it.
    Flow,
    /// It computes or reads its address: what it does with that cannot be seen.
    Taken,
}

/// A reference from one function to another, or to an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Edge {
    /// Index of a function, or the number of functions plus the index of an import.
    pub to: u32,
    /// How.
    pub reach: Reach,
}

/// A symbol that another file may define.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// Name.
    pub name: String,
    /// Version that the file was linked against.
    pub version: Option<String>,
    /// The file runs without it.
    pub weak: bool,
}

/// A function that other files can refer to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// Name.
    pub name: String,
    /// Version.
    pub version: Option<String>,
    /// It satisfies references without a version.
    pub default: bool,
    /// Index of the function.
    pub function: u32,
}

/// A place where a file enters the kernel, and the numbers with which it can.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// Index of the function.
    pub function: u32,
    /// Address in the file.
    pub address: u32,
    /// Numbers. Functions in it are indexes.
    pub slice: Slice,
    /// Where the number lies in memory: how far from the same pointer the first three arguments do, as far as known.
    pub structure: Vec<i64>,
}

/// The numbers that a file passes to an imported function which enters the kernel with them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feed {
    /// Index of the import.
    pub import: u32,
    /// Which argument it is.
    pub argument: u8,
    /// Numbers. Functions in it are indexes.
    pub slice: Slice,
}

/// What one ELF file contributes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Whose instructions it has.
    pub machine: Machine,
    /// GNU build identifier in hexadecimal, if it has one.
    pub build_id: Option<String>,
    /// Name by which others need it.
    pub soname: Option<String>,
    /// Libraries it needs.
    pub needed: Vec<String>,
    /// Those of its sections by which reviewed facts know a file.
    pub sections: Vec<String>,
    /// The loader it asks for.
    pub interpreter: Option<String>,
    /// Lowest virtual address; addresses here count from it.
    pub base: u64,
    /// Address of each function, sorted.
    pub functions: Vec<u32>,
    /// Names of functions, by index.
    pub names: Vec<(u32, String)>,
    /// Where the references of each function begin in `edges`; one more than there are functions.
    pub spans: Vec<u32>,
    /// References.
    pub edges: Vec<Edge>,
    /// Symbols that it refers to.
    pub imports: Vec<Import>,
    /// Functions that it offers.
    pub exports: Vec<Export>,
    /// The function at which a program or loader is entered.
    pub entry: Option<u32>,
    /// Functions that the loader calls when the file is loaded or unloaded.
    pub called: Vec<u32>,
    /// Functions whose address lies in data.
    pub pointers: Vec<u32>,
    /// Imports whose address lies in data, or whose slot no instruction was seen to use.
    pub pointer_imports: Vec<u32>,
    /// Functions that Go's linker kept because it could not rule them out.
    pub kept: Vec<u32>,
    /// Places where it enters the kernel.
    pub sites: Vec<Site>,
    /// Numbers for functions of other files.
    pub feeds: Vec<Feed>,
    /// Names that it passes to `dlsym`.
    pub looked_up: Vec<String>,
    /// It passes names to `dlsym` that could not be found.
    pub looks_up_unknown: bool,
    /// Hashes of the strings that can be names of symbols, for a lookup of an unknown one.
    pub strings: Vec<u32>,
}

impl Summary {
    /// Bytes to keep under the file's digest and [`VERSION`].
    ///
    /// # Errors
    /// None that the writer of a vector can have; kept because the encoder has them.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        postcard::to_stdvec(&(VERSION, self)).map_err(|_| Error::Stored)
    }

    /// Reads what [`Summary::encode`] wrote and checks that every index in it leads somewhere.
    ///
    /// # Errors
    /// Bytes that are damaged, or of another [`VERSION`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let (version, rest) = postcard::take_from_bytes::<u32>(bytes).map_err(|_| Error::Stored)?;
        if version != VERSION {
            return Err(Error::Stored);
        }
        let summary: Self = postcard::from_bytes(rest).map_err(|_| Error::Stored)?;
        if summary.is_consistent() {
            Ok(summary)
        } else {
            Err(Error::Stored)
        }
    }

    fn is_consistent(&self) -> bool {
        let functions = u32::try_from(self.functions.len()).unwrap_or(u32::MAX);
        let imports = u32::try_from(self.imports.len()).unwrap_or(u32::MAX);
        let known = |index: &u32| *index < functions;
        let slice = |slice: &Slice| {
            slice.numbers.iter().all(|(_, function)| known(function))
                && slice.open.iter().all(|(function, _)| known(function))
                && slice.unknown.iter().all(|(function, _)| known(function))
        };
        self.functions.is_sorted()
            && self.spans.len() == self.functions.len() + 1
            && self.spans.is_sorted()
            && self.spans.last().is_some_and(|last| *last as usize == self.edges.len())
            && self
                .edges
                .iter()
                .all(|edge| edge.to < functions.saturating_add(imports))
            && self.names.is_sorted_by_key(|(index, _)| *index)
            && self.exports.iter().all(|export| known(&export.function))
            && self
                .entry
                .iter()
                .chain(&self.called)
                .chain(&self.pointers)
                .chain(&self.kept)
                .all(known)
            && self.pointer_imports.iter().all(|index| *index < imports)
            && self
                .sites
                .iter()
                .all(|site| known(&site.function) && slice(&site.slice))
            && self
                .feeds
                .iter()
                .all(|feed| feed.import < imports && slice(&feed.slice))
    }

    /// The name of a function: its own, or of the one before it and the distance, or its address.
    #[must_use]
    pub fn name(&self, function: u32) -> String {
        let after = self.names.partition_point(|(index, _)| *index <= function);
        let address = self.functions.get(function as usize).copied().unwrap_or_default();
        match after.checked_sub(1).and_then(|index| self.names.get(index)) {
            Some((index, name)) if *index == function => name.clone(),
            _ => format!("function at {:#x}", self.base + u64::from(address)),
        }
    }

    /// The references of a function.
    pub(super) fn edges_of(&self, function: u32) -> &[Edge] {
        let at = function as usize;
        match (self.spans.get(at), self.spans.get(at + 1)) {
            (Some(from), Some(to)) => self.edges.get(*from as usize..*to as usize).unwrap_or_default(),
            _ => &[],
        }
    }
}

/// Hash of a symbol's name (FNV-1a).
pub(super) fn hash(name: &[u8]) -> u32 {
    name.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

/// The functions that find a symbol by its name, their second argument.
pub(super) const LOOKUPS: [&str; 2] = ["dlsym", "dlvsym"];

/// The string at an address, if it can be a symbol's name.
fn name_at<'a>(elf: &Elf<'a>, address: u32) -> Option<&'a [u8]> {
    let bytes = elf.rest(address)?;
    let bytes = bytes.get(..bytes.len().min(MAX_LOOKED_UP))?;
    let end = bytes
        .iter()
        .position(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_'))?;
    (bytes.get(end) == Some(&0) && end > 1).then(|| bytes.get(..end))?
}

/// Reads an ELF file and says what it contributes.
///
/// Bounded in time and memory by the limits of its parts, whatever the bytes are.
///
/// # Errors
/// A file that is not understood, or that passes a limit.
pub fn summarise(bytes: &[u8]) -> Result<Summary, Error> {
    let elf = Elf::parse(bytes)?;
    let slots = Slots::new(&elf);
    match elf.machine {
        Machine::X86_64 => build(&elf, &slots, &mut X86::new(&elf, &slots), &x86::ABI),
        Machine::Aarch64 => build(&elf, &slots, &mut Aarch64::new(&elf, &slots), &aarch64::ABI),
    }
}

fn build(
    elf: &Elf<'_>,
    slots: &Slots,
    decoder: &mut dyn Decode,
    abi: &'static super::slice::Abi,
) -> Result<Summary, Error> {
    let go = pclntab::find(elf)?;
    let pointed = pointed(elf, go.as_ref().map(|table| table.place));
    let functions = go.as_ref().map(|table| table.functions.as_slice());
    let mut code = code::decode(elf, decoder, seeds(elf, functions, &pointed))?;
    let name = |slot| Some(elf.dynamic_symbols.get(slots.symbol(slot)? as usize)?.name);
    let wanted = |slot| {
        let name = name(slot).map(String::from_utf8_lossy);
        name.is_some_and(|name| LOOKUPS.contains(&&*name) || Facts::get().number_argument(&name).is_some())
    };
    held::follow(&mut code, decoder, abi, wanted);
    let mut builder = Builder::new(elf, &code);
    builder.imports(elf, &code, slots);
    builder.edges(elf, &code, slots)?;
    builder.roots(elf, &pointed);
    builder.exports(elf)?;
    builder.names(elf, functions);
    builder.sites(elf, &code, decoder, abi, slots);
    builder.strings(elf, &code)?;
    Ok(builder.summary)
}

/// Addresses of code that lie in data.
#[derive(Debug, Default)]
struct Pointed {
    /// By relocation: certain. Place and address.
    certain: Vec<(u32, u32)>,
    /// By value, in a file that is not relocated.
    words: Vec<u32>,
    /// Called by the loader.
    called: Vec<u32>,
}

fn pointed(elf: &Elf<'_>, table: Option<(u32, u32)>) -> Pointed {
    let mut pointed = Pointed::default();
    for relocation in &elf.relocations {
        match relocation.written {
            Written::Address(address) | Written::Resolved(address) if elf.is_code(address) => {
                pointed.certain.push((relocation.place, address));
            }
            _ => {}
        }
    }
    pointed.called.extend(elf.called.iter().copied());
    let mut arrays = elf.called_arrays.clone();
    for name in [&b".init_array"[..], b".fini_array", b".preinit_array"] {
        arrays.extend(elf.section(name).map(|section| (section.start, section.size)));
    }
    for (place, size) in arrays {
        let entries = elf.rest(place).unwrap_or_default();
        let entries = entries.get(..size as usize).unwrap_or(entries);
        let entries = entries.chunks_exact(8).filter_map(|word| word.try_into().ok());
        pointed
            .called
            .extend(entries.filter_map(|word| elf.address(u64::from_le_bytes(word))));
    }
    for name in [&b".init"[..], b".fini"] {
        pointed.called.extend(elf.section(name).map(|section| section.start));
    }
    pointed.called.retain(|address| elf.is_code(*address));
    if !elf.relocatable {
        for segment in elf.segments.iter().filter(|segment| !segment.executable) {
            for (index, word) in segment.bytes.chunks_exact(8).enumerate() {
                let Ok(word) = word.try_into() else { continue };
                let Some(address) = elf.address(u64::from_le_bytes(word)) else {
                    continue;
                };
                let place = segment.start + u32::try_from(index * 8).unwrap_or_default();
                // The program headers, which lie at the start of the first segment, name the first address of the code.
                if place < elf.headers {
                    continue;
                }
                // Go's table of functions is read by its runtime, to tell them apart, and that of symbols by the loader: code
                // gets the address of a symbol by a relocation or a lookup.
                let tables = [table, Some(elf.symbols)];
                let in_table = tables
                    .iter()
                    .flatten()
                    .any(|(start, end)| *start <= place && place < *end);
                if !in_table && elf.is_code(address) {
                    pointed.words.push(address);
                }
            }
        }
        pointed.words.sort_unstable();
        pointed.words.dedup();
    }
    pointed
}

fn seeds(elf: &Elf<'_>, go: Option<&[pclntab::GoFunction<'_>]>, pointed: &Pointed) -> Seeds {
    let mut seeds = Seeds {
        frames: unwind::frames(elf),
        entries: Vec::new(),
        endless: Vec::new(),
        words: pointed.words.clone(),
    };
    for symbol in elf.dynamic_symbols.iter().chain(&elf.static_symbols) {
        if !symbol.defined || !symbol.is_function || !elf.is_code(symbol.address) {
            continue;
        }
        match symbol.address.checked_add(symbol.size) {
            Some(end) if symbol.size != 0 => seeds.frames.push(Frame {
                start: symbol.address,
                end,
                has_landing_pads: false,
            }),
            _ => seeds.entries.push(symbol.address),
        }
    }
    if let Some(functions) = go {
        let endless = functions
            .iter()
            .filter(|function| pclntab::never_returns(function.name));
        seeds.endless.extend(endless.map(|function| function.start));
        for pair in functions.windows(2) {
            if let [one, next] = pair {
                seeds.frames.push(Frame {
                    start: one.start,
                    end: next.start,
                    has_landing_pads: false,
                });
            }
        }
        seeds.entries.extend(functions.last().map(|function| function.start));
    }
    seeds.entries.extend(elf.entry.filter(|entry| elf.is_code(*entry)));
    seeds.entries.extend(&pointed.called);
    seeds
        .entries
        .extend(pointed.certain.iter().map(|(_, address)| *address));
    // Exports without a type: hand-written assembly.
    seeds.entries.extend(
        elf.dynamic_symbols
            .iter()
            .filter(|symbol| symbol.defined && !symbol.is_object && elf.is_code(symbol.address))
            .map(|symbol| symbol.address),
    );
    seeds
}

struct Builder<'a> {
    summary: Summary,
    code: &'a Code,
    /// Import by index of the dynamic symbol, and by name and version.
    import_of: HashMap<u32, u32>,
    imports: HashMap<(&'a [u8], Option<&'a [u8]>), u32>,
    /// Functions that a caller outside of the file, or a pointer, can enter.
    open: Vec<u32>,
    /// Objects whose bounds are known, sorted by address.
    objects: Vec<&'static DataObject>,
}

/// How far behind an address that code computes, and at which no object begins, another object counts as meant: a
/// compiler takes a constant off the index of an array into the array's address.
const FOLDED: u32 = 64;

impl<'a> Builder<'a> {
    fn new(elf: &Elf<'a>, code: &'a Code) -> Self {
        let build_id = elf.build_id.map(hex::encode);
        // Objects that hold pointers are functions that refer to what their pointers point to.
        let objects = build_id.as_deref().map_or(&[][..], facts::objects);
        let objects: Vec<&DataObject> = objects
            .iter()
            .filter(|(_, start, size)| {
                elf.segment(*start)
                    .is_some_and(|data| !data.executable && start + size <= data.end)
            })
            .collect();
        let mut functions = code.starts.clone();
        functions.extend(objects.iter().map(|(_, start, _)| *start));
        functions.sort_unstable();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            summary: Summary {
                machine: elf.machine,
                build_id,
                soname: elf.soname.map(text),
                needed: elf.needed.iter().map(|name| text(name)).collect(),
                sections: Facts::get()
                    .sections()
                    .filter(|name| elf.section(name.as_bytes()).is_some())
                    .map(str::to_owned)
                    .collect(),
                interpreter: elf.interpreter.map(text),
                base: elf.base,
                functions,
                names: Vec::new(),
                spans: Vec::new(),
                edges: Vec::new(),
                imports: Vec::new(),
                exports: Vec::new(),
                entry: None,
                called: Vec::new(),
                pointers: Vec::new(),
                pointer_imports: Vec::new(),
                kept: Vec::new(),
                sites: Vec::new(),
                feeds: Vec::new(),
                looked_up: Vec::new(),
                looks_up_unknown: false,
                strings: Vec::new(),
            },
            code,
            import_of: HashMap::new(),
            imports: HashMap::new(),
            open: Vec::new(),
            objects,
        }
    }

    /// The function that holds an address.
    fn holding(&self, address: u32) -> Option<u32> {
        if self.objects.is_empty() {
            let index = self.code.places.at_or_before(address)?;
            return u32::try_from(index).ok();
        }
        let after = self.summary.functions.partition_point(|start| *start <= address);
        after.checked_sub(1).and_then(|index| u32::try_from(index).ok())
    }

    /// The function that begins at an address.
    fn beginning(&self, address: u32) -> Option<u32> {
        let index = self.holding(address)?;
        (self.summary.functions.get(index as usize) == Some(&address)).then_some(index)
    }

    fn import(&mut self, elf: &Elf<'a>, symbol: u32) -> Option<u32> {
        if let Some(import) = self.import_of.get(&symbol) {
            return Some(*import);
        }
        let named = elf.dynamic_symbols.get(symbol as usize)?;
        if named.is_object && (!named.defined || !elf.is_code(named.address)) {
            return None;
        }
        if let Some(import) = self.imports.get(&(named.name, named.version)) {
            self.import_of.insert(symbol, *import);
            let known = self.summary.imports.get_mut(*import as usize)?;
            known.weak &= named.weak;
            return Some(*import);
        }
        let import = u32::try_from(self.summary.imports.len()).ok()?;
        self.imports.insert((named.name, named.version), import);
        self.summary.imports.push(Import {
            name: String::from_utf8_lossy(named.name).into_owned(),
            version: named
                .version
                .map(|version| String::from_utf8_lossy(version).into_owned()),
            weak: named.weak,
        });
        self.import_of.insert(symbol, import);
        Some(import)
    }

    /// Imports whose address is in data live always. So does one whose slot no instruction was seen to use: whoever
    /// uses it does so in a way that was not understood.
    fn imports(&mut self, elf: &Elf<'a>, code: &Code, slots: &Slots) {
        let mut used: Vec<u32> = code
            .events
            .iter()
            .filter(|event| matches!(event.kind, Kind::SlotCall | Kind::SlotJump | Kind::SlotUse))
            .map(|event| event.target)
            .collect();
        used.sort_unstable();
        used.dedup();
        for (place, symbol) in slots.iter() {
            let import = self.import(elf, symbol);
            if used.binary_search(&place).is_err() {
                self.summary.pointer_imports.extend(import);
            }
        }
        for relocation in &elf.relocations {
            if let Written::Symbol(symbol) = relocation.written {
                let import = self.import(elf, symbol);
                self.summary.pointer_imports.extend(import);
            }
        }
        self.summary.pointer_imports.sort_unstable();
        self.summary.pointer_imports.dedup();
    }

    /// The object that holds an address.
    fn object(&self, address: u32) -> Option<u32> {
        let after = self.objects.partition_point(|(_, start, _)| *start <= address);
        let (_, start, size) = self.objects.get(after.checked_sub(1)?)?;
        (address < start + size).then(|| self.beginning(*start))?
    }

    /// The objects that code or data which has an address can mean.
    fn meant(&self, address: u32) -> Vec<u32> {
        if self.objects.is_empty() {
            return Vec::new();
        }
        if let Some(object) = self.beginning(address) {
            return vec![object];
        }
        let next = self.objects.partition_point(|(_, start, _)| *start <= address);
        let near = self.objects.get(next..).unwrap_or_default().iter();
        let near = near
            .take_while(|(_, start, _)| *start - address <= FOLDED)
            .map(|(_, start, _)| *start);
        self.object(address)
            .into_iter()
            .chain(near.filter_map(|start| self.beginning(start)))
            .collect()
    }

    fn edges(&mut self, elf: &Elf<'_>, code: &Code, slots: &Slots) -> Result<(), Error> {
        let count = u32::try_from(self.summary.functions.len()).unwrap_or(u32::MAX);
        let mut edges: Vec<(u32, Edge)> = Vec::with_capacity(code.events.len() / 4);
        for event in &code.events {
            let Some(from) = self.holding(event.at) else { continue };
            let found = match event.kind {
                Kind::Call | Kind::Jump => self.holding(event.target).map(|to| (to, Reach::Flow)),
                Kind::Taken => self.beginning(event.target).map(|to| (to, Reach::Taken)),
                Kind::Word => self.beginning(event.target).map(|to| (to, Reach::Taken)),
                Kind::SlotCall | Kind::SlotJump | Kind::SlotUse => slots
                    .symbol(event.target)
                    .and_then(|symbol| self.import_of.get(&symbol))
                    .map(|import| {
                        let reach = if event.kind == Kind::SlotUse {
                            Reach::Taken
                        } else {
                            Reach::Flow
                        };
                        (count + import, reach)
                    }),
                Kind::Data | Kind::Site | Kind::Gate32 | Kind::TableJump | Kind::Return => None,
            };
            if let Some((to, reach)) = found
                && !(to == from && reach == Reach::Flow)
            {
                edges.push((from, Edge { to, reach }));
            }
        }
        if !self.objects.is_empty() {
            for event in code.events.iter().filter(|event| event.kind == Kind::Data) {
                let Some(from) = self.holding(event.at) else { continue };
                for to in self.meant(event.target) {
                    edges.push((
                        from,
                        Edge {
                            to,
                            reach: Reach::Taken,
                        },
                    ));
                }
            }
            for relocation in &elf.relocations {
                if let (Some(from), Written::Address(target)) = (self.object(relocation.place), relocation.written) {
                    let meant = if elf.is_code(target) {
                        self.beginning(target).into_iter().collect()
                    } else {
                        self.meant(target)
                    };
                    edges.extend(meant.into_iter().map(|to| {
                        (
                            from,
                            Edge {
                                to,
                                reach: Reach::Taken,
                            },
                        )
                    }));
                }
            }
        }
        for (index, start) in code.starts.iter().enumerate().skip(1) {
            let (Some(index), Some(before)) = (self.beginning(*start), self.beginning(code.starts[index - 1])) else {
                continue;
            };
            // Code that runs on into the next function, and pieces of one function between which jumps cannot be seen.
            let within = code.range(*start).filter(|range| range.start < *start);
            let joined = within.is_some_and(|range| range.has_landing_pads || range.has_unknown_jumps);
            if code.is_flowed_into(*start) || joined {
                edges.push((
                    before,
                    Edge {
                        to: index,
                        reach: Reach::Flow,
                    },
                ));
            }
            if joined {
                edges.push((
                    index,
                    Edge {
                        to: before,
                        reach: Reach::Flow,
                    },
                ));
            }
        }
        if edges.len() > MAX_EDGES {
            return Err(Error::TooMany("references between functions", MAX_EDGES));
        }
        edges.sort_unstable();
        edges.dedup();
        let mut spans = Vec::with_capacity(self.summary.functions.len() + 1);
        let mut at = 0;
        for function in 0..=count {
            while edges.get(at).is_some_and(|(from, _)| *from < function) {
                at += 1;
            }
            spans.push(u32::try_from(at).unwrap_or(u32::MAX));
        }
        let taken = code
            .events
            .iter()
            .filter(|event| matches!(event.kind, Kind::Taken | Kind::Word));
        self.open = taken
            .map(|event| event.target)
            .filter(|target| self.beginning(*target).is_some())
            .collect();
        self.summary.edges = edges.into_iter().map(|(_, edge)| edge).collect();
        self.summary.spans = spans;
        Ok(())
    }

    fn roots(&mut self, elf: &Elf<'_>, pointed: &Pointed) {
        self.summary.entry = elf.entry.and_then(|entry| self.beginning(entry));
        let indexes = |this: &Self, addresses: &[u32]| {
            let mut indexes: Vec<u32> = addresses
                .iter()
                .filter_map(|address| this.beginning(*address))
                .collect();
            indexes.sort_unstable();
            indexes.dedup();
            indexes
        };
        self.summary.called = indexes(self, &pointed.called);
        let free = pointed
            .certain
            .iter()
            .filter(|(place, _)| self.object(*place).is_none());
        let free: Vec<u32> = free.map(|(_, address)| *address).collect();
        let mut pointers = indexes(self, &free);
        if !self.objects.is_empty() {
            for relocation in &elf.relocations {
                if let (None, Written::Address(target)) = (self.object(relocation.place), relocation.written) {
                    pointers.extend(self.meant(target));
                }
            }
        }
        pointers.extend(indexes(self, &pointed.words));
        pointers.sort_unstable();
        pointers.dedup();
        self.summary.pointers = pointers;
        self.open.extend(elf.entry);
        self.open.extend(&pointed.called);
        self.open.extend(pointed.certain.iter().map(|(_, address)| *address));
        let words = pointed.words.iter().filter(|word| self.beginning(**word).is_some());
        let words: Vec<u32> = words.copied().collect();
        self.open.extend(words);
    }

    fn exports(&mut self, elf: &Elf<'_>) -> Result<(), Error> {
        for symbol in &elf.dynamic_symbols {
            if !symbol.defined || symbol.local || !elf.is_code(symbol.address) {
                continue;
            }
            let Some(function) = self.beginning(symbol.address) else {
                continue;
            };
            self.open.push(symbol.address);
            self.summary.exports.push(Export {
                name: String::from_utf8_lossy(symbol.name).into_owned(),
                version: symbol
                    .version
                    .map(|version| String::from_utf8_lossy(version).into_owned()),
                default: symbol.is_default,
                function,
            });
        }
        let mut names: Vec<&str> = self.summary.exports.iter().map(|export| export.name.as_str()).collect();
        names.sort_unstable();
        if names
            .chunk_by(|one, other| one == other)
            .any(|same| same.len() > MAX_NAMESAKES)
        {
            return Err(Error::TooMany("functions of one name for other files", MAX_NAMESAKES));
        }
        Ok(())
    }

    fn names(&mut self, elf: &Elf<'_>, go: Option<&[pclntab::GoFunction<'_>]>) {
        let mut left = MAX_NAMES;
        let mut names: Vec<(u32, String)> = Vec::new();
        let symbols = elf
            .dynamic_symbols
            .iter()
            .chain(&elf.static_symbols)
            .filter(|symbol| symbol.defined && !symbol.name.is_empty())
            .map(|symbol| (symbol.address, symbol.name));
        let objects: Vec<(u32, &[u8])> = self
            .objects
            .iter()
            .map(|(name, start, _)| (*start, name.as_bytes()))
            .collect();
        let functions = go.unwrap_or_default();
        let go = functions.iter().map(|function| (function.start, function.name));
        for (address, name) in symbols.chain(go).chain(objects) {
            let Some(function) = self.beginning(address) else {
                continue;
            };
            let Some(rest) = left.checked_sub(name.len()) else {
                break;
            };
            left = rest;
            names.push((function, String::from_utf8_lossy(name).into_owned()));
        }
        // Of several names the plainest: fewest leading underscores, then the shortest.
        names.sort_unstable_by(|(one, a), (other, b)| {
            let rank = |name: &str| (name.len() - name.trim_start_matches('_').len(), name.len());
            one.cmp(other)
                .then_with(|| rank(a).cmp(&rank(b)))
                .then_with(|| a.cmp(b))
        });
        names.dedup_by_key(|(function, _)| *function);
        self.summary.names = names;
        self.summary.kept = functions
            .iter()
            .filter_map(|function| self.beginning(function.start))
            .collect();
    }

    fn sites(
        &mut self,
        elf: &Elf<'_>,
        code: &Code,
        decoder: &mut dyn Decode,
        abi: &'static super::slice::Abi,
        slots: &Slots,
    ) {
        self.open.sort_unstable();
        self.open.dedup();
        let open = std::mem::take(&mut self.open);
        let mut slicer = Slicer::new(elf, code, decoder, abi, &open);
        if !self.summary.kept.is_empty() {
            slicer.know_variables();
        }
        let sites: Vec<Event> = code
            .events
            .iter()
            .filter(|event| matches!(event.kind, Kind::Site | Kind::Gate32))
            .copied()
            .collect();
        for event in sites {
            let Some(function) = self.holding(event.at) else {
                continue;
            };
            let mut structure = Vec::new();
            let slice = match event.kind {
                Kind::Site => {
                    let slice = slicer.site(event.at);
                    if matches!(slice.unknown[..], [(_, Why::Memory(Some(_)))]) {
                        structure = slicer.structure(event.at);
                    }
                    slice
                }
                _ => Slice {
                    unknown: vec![(code.start_of(event.at).unwrap_or(event.at), Why::Gate32)],
                    ..Slice::default()
                },
            };
            let slice = self.indexed(slice);
            self.summary.sites.push(Site {
                function,
                address: event.at,
                slice,
                structure,
            });
        }
        // Whoever gets the function's address gives it any name.
        let data = self.summary.pointer_imports.iter();
        let mut data = data.filter_map(|import| self.summary.imports.get(*import as usize));
        self.summary.looks_up_unknown = data.any(|import| LOOKUPS.contains(&import.name.as_str()));
        let facts = Facts::get();
        for event in &code.events {
            if !matches!(event.kind, Kind::SlotCall | Kind::SlotJump | Kind::SlotUse) {
                continue;
            }
            let Some(import) = slots
                .symbol(event.target)
                .and_then(|symbol| self.import_of.get(&symbol))
                .copied()
            else {
                continue;
            };
            let name = self
                .summary
                .imports
                .get(import as usize)
                .map_or("", |import| import.name.as_str());
            if event.kind == Kind::SlotUse {
                // The same.
                self.summary.looks_up_unknown |= LOOKUPS.contains(&name);
                continue;
            }
            if LOOKUPS.contains(&name) {
                let slice = slicer.argument(event.at, 1, event.kind == Kind::SlotCall);
                self.looked_up(elf, &slice);
                continue;
            }
            let Some(argument) = facts.number_argument(name) else {
                continue;
            };
            let slice = slicer.argument(event.at, argument, event.kind == Kind::SlotCall);
            let slice = self.indexed(slice);
            self.summary.feeds.push(Feed {
                import,
                argument,
                slice,
            });
        }
    }

    /// The names that reach a call of `dlsym`.
    fn looked_up(&mut self, elf: &Elf<'_>, slice: &Slice) {
        self.summary.looks_up_unknown |= !slice.unknown.is_empty() || !slice.open.is_empty();
        for (address, _) in &slice.numbers {
            let place = address.wrapping_sub(u32::try_from(elf.base & 0xffff_ffff).unwrap_or_default());
            match elf
                .segment(place)
                .filter(|segment| !segment.writable)
                .and_then(|_| name_at(elf, place))
            {
                Some(name) => self.summary.looked_up.push(String::from_utf8_lossy(name).into_owned()),
                None => self.summary.looks_up_unknown |= *address != 0,
            }
        }
        self.summary.looked_up.sort_unstable();
        self.summary.looked_up.dedup();
    }

    /// A slice with indexes of functions in place of their addresses.
    fn indexed(&self, slice: Slice) -> Slice {
        let index = |address: u32| self.holding(address).unwrap_or_default();
        Slice {
            numbers: slice
                .numbers
                .into_iter()
                .map(|(number, at)| (number, index(at)))
                .collect(),
            open: slice.open.into_iter().map(|(at, place)| (index(at), place)).collect(),
            unknown: slice.unknown.into_iter().map(|(at, why)| (index(at), why)).collect(),
        }
    }

    /// Every string that can be a symbol's name.
    fn strings(&mut self, elf: &Elf<'_>, code: &Code) -> Result<(), Error> {
        // A string is passed by its address, which code computes or a relocation writes; the linker may have made it
        // the end of a longer one, so the strings themselves say too little.
        let computed = code
            .events
            .iter()
            .filter(|event| event.kind == Kind::Data)
            .map(|event| event.target);
        let written = elf
            .relocations
            .iter()
            .filter_map(|relocation| match relocation.written {
                Written::Address(address) => Some(address),
                _ => None,
            });
        let mut addresses: Vec<u32> = computed.chain(written).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let mut hashes = Vec::new();
        let mut left = MAX_STRINGS;
        for name in addresses.into_iter().filter_map(|address| name_at(elf, address)) {
            hashes.push(hash(name));
            let rest = left.checked_sub(name.len());
            left = rest.ok_or(Error::TooMany("bytes of strings that code refers to", MAX_STRINGS))?;
        }
        hashes.sort_unstable();
        hashes.dedup();
        self.summary.strings = hashes;
        Ok(())
    }
}
