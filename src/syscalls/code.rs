//! Which bytes are instructions, and what each of them refers to.
//!
//! Ranges that a frame entry, a sized symbol or Go's function table bounds are decoded from end to end, so that blocks
//! which only a jump table or the unwinder reaches are seen. Bytes outside of them are code only where control flow
//! leads: tables among the code of hand-written assembly would decode as anything.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::Error;
use super::elf::{Elf, Written};
use super::held::Treats;
use super::slice::Step;
use super::unwind::Frame;

/// Most instructions that are decoded in one file. LLVM as one library has 25 million.
const MAX_INSTRUCTIONS: u32 = 32 << 20;
/// Most references of the instructions of one file, and most of its instructions that are padding. A Go program of
/// 120 megabytes has 4 million.
const MAX_EVENTS: usize = 6 << 20;
/// Most functions of one file. LLVM has 160 thousand.
const MAX_STARTS: usize = 3 << 17;
/// Most places where one file enters the kernel.
const MAX_SITES: usize = 1 << 14;
/// Most that is read to find out where jumps through tables, and words that may be addresses, lead: references sorted,
/// bytes searched, entries read.
const MAX_SEARCHED: u32 = 16 << 20;
/// Most entries of a jump table.
const MAX_TABLE: u32 = 4096;
/// Most instructions before a jump among which its table's address is looked for, and most that are decoded for that;
/// jumps behind those are not told apart.
const MAX_STRAIGHT: usize = 16;
const MAX_TOLD: usize = 1 << 20;
/// Most functions with jump tables and without bounds.
const MAX_UNBOUNDED: usize = 1 << 14;
/// Most times that code found through jump tables has jump tables itself.
const MAX_ROUNDS: usize = 16;

/// What an instruction refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Calls the target.
    Call,
    /// Jumps to the target, or may.
    Jump,
    /// Computes the target's address.
    Taken,
    /// Holds a number that may be the target's address by chance.
    Word,
    /// Calls or jumps through a slot that the loader fills; the target is the slot.
    SlotCall,
    /// As above, by a jump.
    SlotJump,
    /// Reads a slot that the loader fills.
    SlotUse,
    /// Computes or uses the address of data.
    Data,
    /// Enters the kernel.
    Site,
    /// Enters the kernel by the 32-bit gate.
    Gate32,
    /// Jumps to an address from a table; the target is the table's address, or 0.
    TableJump,
    /// Returns, or jumps to where nothing shows.
    Return,
}

/// A reference of the instruction at `at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Event {
    pub at: u32,
    pub kind: Kind,
    pub target: u32,
}

/// How an instruction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Control goes on to the next one.
    Next,
    /// The same, and it does nothing.
    Nop,
    /// The same, when the called function returns.
    Call,
    /// Control does not go on.
    Never,
    /// No instruction.
    Invalid,
}

/// A decoder of one machine's instructions.
pub(super) trait Decode {
    /// Appends what the instruction at `at` refers to; its length in bytes and its end.
    fn decode(&mut self, at: u32, events: &mut Vec<Event>) -> (u32, End);
    /// What the instruction at `at` does to registers and memory.
    fn step(&mut self, at: u32) -> Option<Step>;
    /// What the instruction at `at` does with the value of a register.
    fn treats(&mut self, at: u32, register: u8) -> Treats;
    /// The table of offsets that a jump reads, and the first instruction that says so, where those before the jump do.
    ///
    /// `before` are instructions of which each goes on to the one in front of it, the last one to the jump.
    fn table(&mut self, jump: u32, before: &[u32]) -> Option<(u32, u32)>;
    /// How many entries the table of a jump has, and the first instruction that says so: the index is compared before.
    fn entries(&mut self, jump: u32, before: &[u32]) -> Option<(u32, u32)>;
    /// Forgets what it remembers of earlier instructions: a new function begins.
    fn reset(&mut self);
}

/// One bit for each byte of code.
#[derive(Debug)]
struct Bits {
    first: u32,
    words: Vec<u64>,
}

impl Bits {
    fn new(first: u32, end: u32) -> Self {
        Self {
            first,
            words: vec![0; ((end - first) / 64 + 1) as usize],
        }
    }

    fn get(&self, address: u32) -> bool {
        let Some(bit) = address.checked_sub(self.first) else {
            return false;
        };
        self.words
            .get((bit / 64) as usize)
            .is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }

    /// Sets the bit; whether it was set before.
    fn set(&mut self, address: u32) -> bool {
        let Some(bit) = address.checked_sub(self.first) else {
            return true;
        };
        let Some(word) = self.words.get_mut((bit / 64) as usize) else {
            return true;
        };
        let before = *word >> (bit % 64) & 1 == 1;
        *word |= 1 << (bit % 64);
        before
    }
}

/// Which of sorted addresses is the last one at or before another, without a search: it is asked for every reference.
#[derive(Debug, Default)]
pub(super) struct Places {
    first: u32,
    /// A bit for each byte from `first` on, and how many are set before each word.
    words: Vec<(u64, u32)>,
}

impl Places {
    /// Of sorted addresses that lie as close together as code does.
    fn new(sorted: &[u32]) -> Self {
        let (Some(first), Some(last)) = (sorted.first().copied(), sorted.last()) else {
            return Self::default();
        };
        let mut words = vec![(0u64, 0u32); ((last - first) / 64 + 1) as usize];
        for address in sorted {
            let bit = address - first;
            if let Some((word, _)) = words.get_mut((bit / 64) as usize) {
                *word |= 1 << (bit % 64);
            }
        }
        let mut before = 0;
        for (word, count) in &mut words {
            *count = before;
            before += word.count_ones();
        }
        Self { first, words }
    }

    /// Its index.
    pub fn at_or_before(&self, address: u32) -> Option<usize> {
        let bit = address.checked_sub(self.first)?;
        let (word, before) = match self.words.get((bit / 64) as usize) {
            Some((word, before)) => (word & (u64::MAX >> (63 - bit % 64)), *before),
            None => *self.words.last()?,
        };
        ((before + word.count_ones()) as usize).checked_sub(1)
    }
}

/// A stretch of code that one entry bounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub start: u32,
    pub end: u32,
    pub has_landing_pads: bool,
    /// Another range begins before this one would have ended.
    is_cut: bool,
    /// A jump in it goes to addresses that could not be read from a table.
    pub has_unknown_jumps: bool,
}

/// The decoded code of a file.
#[derive(Debug)]
pub(super) struct Code {
    /// Sorted, not overlapping.
    pub ranges: Vec<Range>,
    /// Sorted by place.
    pub events: Vec<Event>,
    /// Where functions, or what must be treated as such, begin; sorted.
    pub starts: Vec<u32>,
    /// Starts of functions that never come back to their caller; sorted.
    pub endless: Vec<u32>,
    /// Of `starts`.
    pub places: Places,
    instructions: Bits,
    flows: Bits,
}

impl Code {
    /// The references of the instructions from one address to before another.
    pub fn events_within(&self, from: u32, to: u32) -> &[Event] {
        let from = self.events.partition_point(|event| event.at < from);
        let to = self.events.partition_point(|event| event.at < to);
        self.events.get(from..to).unwrap_or_default()
    }

    /// Whether the instruction at an address calls a function that never comes back.
    pub fn calls_endless(&self, address: u32) -> bool {
        let events = self.events_within(address, address.saturating_add(1));
        events
            .iter()
            .any(|event| event.kind == Kind::Call && self.endless.binary_search(&event.target).is_ok())
    }

    /// Padding in front of an aligned block is not entered from before, unless something jumps into it.
    fn enter_padding(&mut self, mut padding: Vec<(u32, u32)>) {
        let mut targets: Vec<u32> = self
            .events
            .iter()
            .filter(|event| event.kind == Kind::Jump)
            .map(|event| event.target)
            .collect();
        targets.sort_unstable();
        padding.sort_unstable();
        for (at, next) in padding {
            if self.flows.get(at) || self.starts.binary_search(&at).is_ok() || targets.binary_search(&at).is_ok() {
                self.flows.set(next);
            }
        }
    }

    /// Makes each stub of a PLT a function of its own. One frame entry bounds them all, and a stub that nothing calls
    /// would count as part of the one before it. A jump through a slot that no path and no jump of its range leads to is
    /// reached from elsewhere or not at all; where the range hides ways, it stays.
    fn part_stubs(&mut self, elf: &Elf<'_>) {
        const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
        let mut targets: Vec<(u32, u32)> = Vec::new();
        targets.extend(
            self.events
                .iter()
                .filter(|event| event.kind == Kind::Jump)
                .map(|event| (event.target, event.at)),
        );
        targets.sort_unstable();
        let mut found = Vec::new();
        for event in self.events.iter().filter(|event| event.kind == Kind::SlotJump) {
            let mut at = event.at;
            if let Some(before) = at.checked_sub(4)
                && self.instructions.get(before)
                && elf.bytes(before, 4) == Some(&ENDBR64)
            {
                at = before;
            }
            let range = self
                .range(at)
                .filter(|range| !range.has_landing_pads && !range.has_unknown_jumps);
            let Some(range) = range.filter(|_| !self.flows.get(at)) else {
                continue;
            };
            let from = targets.partition_point(|(target, _)| *target < at);
            let jumps = targets[from..].iter().take_while(|(target, _)| *target == at);
            if !jumps
                .into_iter()
                .any(|(_, from)| range.start <= *from && *from < range.end)
            {
                found.push(at);
            }
        }
        self.starts.extend(found);
        self.starts.sort_unstable();
        self.starts.dedup();
    }

    /// Finds the functions from which no way leads back: no return, no jump out of sight, no way into a function that
    /// has one.
    fn find_endless(&mut self) {
        let holding = |address: u32| self.places.at_or_before(address);
        let mut returns = vec![false; self.starts.len()];
        let mut into: Vec<(usize, usize)> = Vec::new();
        let mut work = Vec::new();
        for event in &self.events {
            let Some(from) = holding(event.at) else { continue };
            match event.kind {
                Kind::Return | Kind::SlotJump | Kind::TableJump if !returns[from] => {
                    returns[from] = true;
                    work.push(from);
                }
                Kind::Jump => into.extend(holding(event.target).filter(|to| *to != from).map(|to| (to, from))),
                _ => {}
            }
        }
        for (index, start) in self.starts.iter().enumerate().skip(1) {
            if self.flows.get(*start) {
                into.push((index, index - 1));
            }
        }
        into.sort_unstable();
        while let Some(to) = work.pop() {
            let from = into.partition_point(|edge| edge.0 < to);
            for (_, before) in into[from..].iter().take_while(|edge| edge.0 == to) {
                if !std::mem::replace(&mut returns[*before], true) {
                    work.push(*before);
                }
            }
        }
        let endless = self.starts.iter().zip(&returns).filter(|(_, returns)| !**returns);
        self.endless = endless.map(|(start, _)| *start).collect();
    }

    /// Whether an instruction was decoded at an address.
    pub fn is_instruction(&self, address: u32) -> bool {
        self.instructions.get(address)
    }

    /// Whether the instruction before an address goes on to it.
    pub fn is_flowed_into(&self, address: u32) -> bool {
        self.flows.get(address)
    }

    /// The range that holds an address.
    pub fn range(&self, address: u32) -> Option<&Range> {
        find(&self.ranges, address)
    }

    /// The start of the function that holds an address.
    pub fn start_of(&self, address: u32) -> Option<u32> {
        self.starts.get(self.places.at_or_before(address)?).copied()
    }
}

/// Whether one of sorted addresses lies behind an instruction, up to another one.
fn is_entered(leads: &[u32], from: u32, to: u32) -> bool {
    let next = leads.partition_point(|target| *target <= from);
    leads.get(next).is_some_and(|target| *target <= to)
}

fn find(ranges: &[Range], address: u32) -> Option<&Range> {
    let after = ranges.partition_point(|range| range.start <= address);
    ranges.get(after.checked_sub(1)?).filter(|range| address < range.end)
}

/// Where decoding begins.
#[derive(Debug, Default)]
pub(super) struct Seeds {
    /// Functions with their bounds.
    pub frames: Vec<Frame>,
    /// Addresses that something outside of the code calls or points to.
    pub entries: Vec<u32>,
    /// Functions that are known not to come back to their caller.
    pub endless: Vec<u32>,
    /// Words of data that are an address of code by value.
    pub words: Vec<u32>,
}

/// Decodes everything that the seeds lead to.
///
/// # Errors
/// More instructions than [`MAX_INSTRUCTIONS`], or code that is spread too far.
pub(super) fn decode(elf: &Elf<'_>, decoder: &mut dyn Decode, seeds: Seeds) -> Result<Code, Error> {
    let (Some((first, _)), Some((_, end))) = (elf.code.first(), elf.code.last()) else {
        return Err(Error::NoCode);
    };
    if end - first > 2 * super::elf::MAX_CODE {
        return Err(Error::TooMany(
            "bytes between its first and last instruction",
            2 * super::elf::MAX_CODE as usize,
        ));
    }
    let ranges = disjoint(elf, seeds.frames);
    let mut scan = Scan {
        elf,
        decoder,
        starts: Bits::new(*first, *end),
        code: Code {
            ranges,
            events: Vec::new(),
            starts: Vec::new(),
            endless: Vec::new(),
            places: Places::default(),
            instructions: Bits::new(*first, *end),
            flows: Bits::new(*first, *end),
        },
        found: Vec::new(),
        pending: Vec::new(),
        seen: 0,
        left: MAX_INSTRUCTIONS,
        searched: MAX_SEARCHED,
        sites: 0,
        extra: MAX_UNBOUNDED,
        told: MAX_TOLD,
        apart: Vec::new(),
        words: seeds.words.clone(),
        checked: (0, 0, true),
        padding: Vec::new(),
    };
    for index in 0..scan.code.ranges.len() {
        let range = scan.code.ranges[index];
        scan.start(range.start);
        scan.run(range.start, range.end, !range.is_cut)?;
    }
    for entry in seeds.entries {
        scan.start(entry);
    }
    scan.settle()?;
    // What a function calls may turn a word that was looked at before into a function's address.
    let mut words = seeds.words;
    for _ in 0..MAX_ROUNDS {
        words.extend(
            scan.code
                .events
                .iter()
                .filter(|event| event.kind == Kind::Word)
                .map(|event| event.target),
        );
        scan.search(words.len())?;
        words.sort_unstable();
        words.dedup();
        let before = scan.found.len();
        for word in &words {
            scan.word(*word);
        }
        if scan.found.len() == before {
            break;
        }
        scan.settle()?;
    }
    let Scan {
        mut code,
        mut found,
        padding,
        ..
    } = scan;
    found.sort_unstable();
    code.starts = found;
    code.events.sort();
    code.events.dedup();
    code.enter_padding(padding);
    code.part_stubs(elf);
    code.places = Places::new(&code.starts);
    code.find_endless();
    code.endless.extend(seeds.endless);
    code.endless.sort_unstable();
    Ok(code)
}

/// Bounded functions as ranges that do not overlap: one that begins in another cuts it.
fn disjoint(elf: &Elf<'_>, mut frames: Vec<Frame>) -> Vec<Range> {
    frames.retain(|frame| elf.is_code(frame.start));
    frames.sort_unstable();
    let mut ranges: Vec<Range> = Vec::with_capacity(frames.len());
    for frame in frames {
        if let Some(last) = ranges.last_mut() {
            if last.start == frame.start {
                last.end = last.end.max(frame.end);
                last.has_landing_pads |= frame.has_landing_pads;
                continue;
            }
            last.is_cut |= last.end > frame.start;
            last.end = last.end.min(frame.start);
        }
        ranges.push(Range {
            start: frame.start,
            end: frame.end,
            has_landing_pads: frame.has_landing_pads,
            is_cut: false,
            has_unknown_jumps: false,
        });
    }
    for range in &mut ranges {
        let code = elf.code_around(range.start);
        range.end = range.end.min(code.map_or(range.start, |(_, end)| end));
    }
    ranges
}

struct Scan<'a, 'b> {
    elf: &'a Elf<'b>,
    decoder: &'a mut dyn Decode,
    starts: Bits,
    code: Code,
    found: Vec<u32>,
    pending: Vec<u32>,
    /// Events up to here have been followed.
    seen: usize,
    /// How many more instructions are decoded.
    left: u32,
    /// How much more is searched.
    searched: u32,
    sites: usize,
    extra: usize,
    /// How many more instructions are decoded to tell tables apart.
    told: usize,
    /// Jumps whose tables were told apart, each with the first instruction that says so.
    apart: Vec<(u32, Event)>,
    /// Words of data that may be addresses of code, sorted: of labels within a function as well.
    words: Vec<u32>,
    /// Events and starts up to here lead into none of these, and there are no unknown jumps that were not looked at.
    checked: (usize, usize, bool),
    /// What does nothing behind an instruction that ends a path, and what comes after it.
    padding: Vec<(u32, u32)>,
}

impl Scan<'_, '_> {
    /// Makes an address the start of a function, to be decoded if it is not yet.
    fn start(&mut self, address: u32) {
        if self.elf.is_code(address) && !self.starts.set(address) {
            self.found.push(address);
            if !self.code.instructions.get(address) {
                self.pending.push(address);
            }
        }
    }

    /// Counts an instruction, and what the ones before it refer to.
    fn count(&mut self) -> Result<(), Error> {
        if self.code.events.len() + self.padding.len() > MAX_EVENTS {
            return Err(Error::TooMany("references and padding", MAX_EVENTS));
        }
        let left = self.left.checked_sub(1);
        self.left = left.ok_or(Error::TooMany("instructions", MAX_INSTRUCTIONS as usize))?;
        Ok(())
    }

    /// Counts what is searched.
    fn search(&mut self, count: usize) -> Result<(), Error> {
        let left = u32::try_from(count)
            .ok()
            .and_then(|count| self.searched.checked_sub(count));
        self.searched = left.ok_or(Error::TooMany(
            "references to follow through jump tables",
            MAX_SEARCHED as usize,
        ))?;
        Ok(())
    }

    /// Decodes from `at` to `end`, past instructions that end a path when `end` is known; `whole`: a function ends there.
    ///
    /// A compiler ends a function with a call only if that never returns, as that of `__stack_chk_fail` behind many: the
    /// function that happens to begin there is not run on into.
    fn run(&mut self, mut at: u32, end: u32, whole: bool) -> Result<(), Error> {
        self.decoder.reset();
        let mut last = End::Never;
        while at < end {
            if self.code.instructions.set(at) {
                // Already decoded from here on, to the next gap.
                let (length, _) = self.decoder.decode(at, &mut Vec::new());
                at = at.saturating_add(length.max(1));
                last = End::Never;
                continue;
            }
            self.count()?;
            let (length, how) = self.decoder.decode(at, &mut self.code.events);
            at = at.saturating_add(length.max(1));
            let padding = how == End::Nop && matches!(last, End::Never | End::Invalid);
            if padding {
                self.padding.push((at - length, at));
                continue;
            }
            last = how;
            if matches!(how, End::Next | End::Nop) || (how == End::Call && !(whole && at >= end)) {
                self.code.flows.set(at);
            }
        }
        // What else reaches the end of a frame entry runs on into the code behind it, as `__clone3` of glibc does.
        if matches!(last, End::Next | End::Nop) && self.elf.is_code(at) {
            self.path(at)?;
        }
        Ok(())
    }

    /// Decodes one path until control goes elsewhere or meets what is known.
    fn path(&mut self, mut at: u32) -> Result<(), Error> {
        self.decoder.reset();
        while self.elf.is_code(at) && !self.code.instructions.set(at) {
            self.count()?;
            let (length, how) = self.decoder.decode(at, &mut self.code.events);
            if matches!(how, End::Never | End::Invalid) {
                break;
            }
            at = at.saturating_add(length.max(1));
            self.code.flows.set(at);
        }
        Ok(())
    }

    /// Follows references until they lead nowhere new.
    fn settle(&mut self) -> Result<(), Error> {
        let mut tables = 0;
        // All tables are read again.
        self.apart.clear();
        for _ in 0..MAX_ROUNDS {
            while self.seen < self.code.events.len() || !self.pending.is_empty() {
                while let Some(event) = self.code.events.get(self.seen).copied() {
                    self.seen += 1;
                    self.sites += usize::from(matches!(event.kind, Kind::Site | Kind::Gate32));
                    if self.sites > MAX_SITES {
                        return Err(Error::TooMany("places that enter the kernel", MAX_SITES));
                    }
                    self.follow(event);
                    if self.found.len() > MAX_STARTS {
                        return Err(Error::TooMany("functions", MAX_STARTS));
                    }
                }
                while let Some(address) = self.pending.pop() {
                    self.path(address)?;
                }
            }
            let end = self.code.events.len();
            if tables < end {
                let jumps = self.code.events[tables..end].iter();
                let jumps = jumps.filter(|event| event.kind == Kind::TableJump).copied().collect();
                self.tables(jumps, true)?;
                tables = end;
                continue;
            }
            let joined = self.no_longer_apart()?;
            if joined.is_empty() {
                return Ok(());
            }
            self.tables(joined, false)?;
        }
        Err(Error::TooMany("rounds of jump tables that lead to others", MAX_ROUNDS))
    }

    fn follow(&mut self, event: Event) {
        match event.kind {
            Kind::Call | Kind::Taken => self.start(event.target),
            Kind::Jump => {
                let inside = find(&self.code.ranges, event.at)
                    .is_some_and(|range| range.start <= event.target && event.target < range.end);
                // Inside a range everything is decoded; a jump between ranges needs no start of its own either, unless
                // it leads to where no range is.
                if self.code.instructions.get(event.target) {
                    return;
                }
                if inside || find(&self.code.ranges, event.target).is_some() {
                    self.pending.push(event.target);
                } else {
                    self.start(event.target);
                }
            }
            Kind::Word => self.word(event.target),
            _ => {}
        }
    }

    /// A number that may be a function's address: it is, when a function begins there or no range says what does.
    fn word(&mut self, address: u32) {
        let known = self.starts.get(address) || find(&self.code.ranges, address).is_none();
        if known && self.elf.is_code(address) {
            self.start(address);
        }
    }

    /// Reads the jump tables of some jumps, those of each apart where that may be, and notes what they lead to.
    fn tables(&mut self, jumps: Vec<Event>, apart: bool) -> Result<(), Error> {
        if jumps.is_empty() {
            return Ok(());
        }
        let mut data: Vec<(u32, u32)> = self
            .code
            .events
            .iter()
            .filter(|event| event.kind == Kind::Data)
            .map(|event| (event.at, event.target))
            .collect();
        // Each is sorted twice.
        self.search(2 * data.len())?;
        data.sort();
        // A table ends where something else begins that code refers to.
        let mut ends: Vec<u32> = data.iter().map(|(_, target)| *target).collect();
        ends.sort_unstable();
        ends.dedup();
        let told = if apart {
            self.told_apart(&jumps, &ends)?
        } else {
            HashMap::new()
        };
        // The first jump of each function through tables that are not told apart: all of them lead to the same places.
        let mut firsts: HashMap<u32, u32> = HashMap::new();
        for jump in jumps {
            let after = self.code.ranges.partition_point(|range| range.start <= jump.at);
            let known = after
                .checked_sub(1)
                .filter(|index| jump.at < self.code.ranges[*index].end);
            let index = known.unwrap_or(after);
            if known.is_none() {
                self.extra = self
                    .extra
                    .checked_sub(1)
                    .ok_or(Error::TooMany("functions without bounds", MAX_UNBOUNDED))?;
                let (start, end) = self.unbounded(jump.at)?;
                // Ranges behind it make room.
                self.search((self.code.ranges.len() - index) / 64)?;
                self.code.ranges.insert(
                    index,
                    Range {
                        start,
                        end,
                        has_landing_pads: false,
                        is_cut: true,
                        has_unknown_jumps: false,
                    },
                );
            }
            let (first, last) = (self.code.ranges[index].start, self.code.ranges[index].end);
            let found = if let (Some(targets), true) = (told.get(&jump.at), known.is_some()) {
                targets.clone()
            } else if jump.target == 0 {
                match firsts.entry(first) {
                    // As good as a jump to the first one: that jumps on, and does nothing else.
                    Entry::Occupied(one) => vec![*one.get()],
                    Entry::Vacant(place) => {
                        place.insert(jump.at);
                        let near =
                            data.partition_point(|(at, _)| *at < first)..data.partition_point(|(at, _)| *at < last);
                        let near = data.get(near).unwrap_or_default();
                        self.search(near.len())?;
                        self.relative_tables(near, &ends, first, last)
                    }
                }
            } else {
                self.absolute_table(jump.target, MAX_TABLE, first, last)
            };
            self.search(found.len())?;
            for target in &found {
                self.code.events.push(Event {
                    at: jump.at,
                    kind: Kind::Jump,
                    target: *target,
                });
            }
            if found.is_empty() && !self.code.ranges[index].has_unknown_jumps {
                self.code.ranges[index].has_unknown_jumps = true;
                self.checked.2 = false;
                if known.is_none() {
                    // Nothing bounds the function and nothing says where it jumps: all of it up to the next one.
                    self.run(first, last, false)?;
                }
            }
        }
        Ok(())
    }

    /// Where the jumps lead whose table, or the length of it, the instructions before them name.
    ///
    /// A jump of a `switch` reads one table, whose address is computed once. That what computes it lies before the jump,
    /// and nothing leads in between, says which of the function's it is. In the same way an index that was found to be
    /// no more than a number says how many entries there are.
    fn told_apart(&mut self, jumps: &[Event], ends: &[u32]) -> Result<HashMap<u32, Vec<u32>>, Error> {
        let mut found: Vec<(u32, Event, Vec<u32>)> = Vec::new();
        for jump in jumps {
            let range = find(&self.code.ranges, jump.at).filter(|range| !range.has_unknown_jumps);
            let Some(range) = range.copied() else {
                continue;
            };
            let before = self.straight(jump.at, range.start);
            let mut targets = Vec::new();
            let from = if jump.target == 0 {
                let Some((from, table)) = self.decoder.table(jump.at, &before) else {
                    continue;
                };
                self.relative_table(table, ends, range.start, range.end, &mut targets);
                from
            } else {
                let Some((from, entries)) = self.decoder.entries(jump.at, &before) else {
                    continue;
                };
                targets = self.absolute_table(jump.target, entries, range.start, range.end);
                // Where one of the entries leads nowhere, the table is not what it looked like.
                if targets.len() < entries as usize {
                    targets.clear();
                }
                from
            };
            self.search(targets.len())?;
            found.push((from, *jump, targets));
        }
        if self.apart.is_empty() {
            self.checked = (self.code.events.len(), self.found.len(), self.checked.2);
        }
        let more: Vec<u32> = found.iter().flat_map(|(_, _, targets)| targets).copied().collect();
        let leads = self.leads(0, 0, more)?;
        let entered = |from, at| is_entered(&leads, from, at) || is_entered(&self.words, from, at);
        found.retain(|(from, jump, _)| !entered(*from, jump.at));
        self.apart.extend(found.iter().map(|(from, jump, _)| (*from, *jump)));
        Ok(found.into_iter().map(|(_, jump, targets)| (jump.at, targets)).collect())
    }

    /// Where something leads to, by events and starts from some on, and some more; sorted.
    fn leads(&mut self, events: usize, starts: usize, more: Vec<u32>) -> Result<Vec<u32>, Error> {
        let mut leads = more;
        let events = self.code.events.get(events..).unwrap_or_default().iter();
        leads.extend(
            events
                .filter(|event| matches!(event.kind, Kind::Jump | Kind::Word))
                .map(|event| event.target),
        );
        leads.extend(self.found.get(starts..).unwrap_or_default());
        self.search(leads.len())?;
        leads.sort_unstable();
        Ok(leads)
    }

    /// The jumps that were told apart before something was found that may lead in between: tables which were read at the
    /// same time or later show jumps that nobody knew of then.
    fn no_longer_apart(&mut self) -> Result<Vec<Event>, Error> {
        let (events, starts, all_known) = self.checked;
        self.checked = (self.code.events.len(), self.found.len(), true);
        if self.apart.is_empty() || (events, starts, all_known) == self.checked {
            return Ok(Vec::new());
        }
        self.search(self.apart.len())?;
        let leads = self.leads(events, starts, Vec::new())?;
        let ranges = &self.code.ranges;
        let is_hidden = |at: u32| !all_known && find(ranges, at).is_none_or(|range| range.has_unknown_jumps);
        let (joined, apart): (Vec<_>, Vec<_>) = std::mem::take(&mut self.apart)
            .into_iter()
            .partition(|(from, jump)| is_entered(&leads, *from, jump.at) || is_hidden(jump.at));
        self.apart = apart;
        Ok(joined.into_iter().map(|(_, jump)| jump).collect())
    }

    /// The instructions before an address, the nearest first, as far as each does nothing but go on to the next.
    fn straight(&mut self, mut at: u32, first: u32) -> Vec<u32> {
        let mut found = Vec::new();
        while found.len() < MAX_STRAIGHT && self.told > 0 && self.code.flows.get(at) {
            let before = (1..=15).filter_map(|length| at.checked_sub(length));
            let before: Vec<u32> = before
                .filter(|before| *before >= first && self.code.instructions.get(*before))
                .collect();
            self.told = self.told.saturating_sub(before.len());
            let mut ones = before.into_iter().filter(|before| {
                let step = self.decoder.step(*before);
                step.is_some_and(|step| !step.ends && !step.call && before.checked_add(step.length) == Some(at))
            });
            // Of instructions that overlap it is not known which one was run.
            let (Some(one), None) = (ones.next(), ones.next()) else {
                break;
            };
            found.push(one);
            at = one;
        }
        found
    }

    /// From the last start before an address to the next start, range or end of code after it.
    fn unbounded(&mut self, address: u32) -> Result<(u32, u32), Error> {
        let (lowest, highest) = self.elf.code_around(address).unwrap_or((address, address + 1));
        let mut first = address;
        while !self.starts.get(first) && first > lowest {
            first -= 1;
        }
        let next = self.code.ranges.partition_point(|range| range.start <= address);
        let highest = self
            .code
            .ranges
            .get(next)
            .map_or(highest, |next| next.start.min(highest));
        let mut last = address + 1;
        while last < highest && !self.starts.get(last) {
            last += 1;
        }
        self.search((last - first) as usize)?;
        Ok((first, last))
    }

    fn lands(&self, target: u32, first: u32, last: u32) -> bool {
        (first <= target && target < last) || find(&self.code.ranges, target).is_some()
    }

    /// Tables of 32-bit offsets from their own start: every table whose address the same function computes.
    fn relative_tables(&self, data: &[(u32, u32)], ends: &[u32], first: u32, last: u32) -> Vec<u32> {
        let mut tables: Vec<u32> = data
            .iter()
            .map(|(_, target)| *target)
            .filter(|target| target % 4 == 0)
            .collect();
        tables.sort_unstable();
        tables.dedup();
        let mut targets = Vec::new();
        for table in tables {
            self.relative_table(table, ends, first, last, &mut targets);
        }
        targets
    }

    /// A table of 32-bit offsets from its own start.
    fn relative_table(&self, table: u32, ends: &[u32], first: u32, last: u32, targets: &mut Vec<u32>) {
        let end = ends.partition_point(|end| *end <= table);
        let end = ends.get(end).copied().unwrap_or(u32::MAX);
        for entry in 0..MAX_TABLE {
            let Some(place) = table.checked_add(entry * 4).filter(|place| *place < end) else {
                break;
            };
            if self.elf.segment(place).is_none_or(|segment| segment.writable) {
                break;
            }
            let Some(offset) = self.elf.word32(place) else { break };
            let target = table.wrapping_add(offset);
            if offset == 0 || !self.lands(target, first, last) || !self.elf.is_code(target) {
                break;
            }
            targets.push(target);
        }
    }

    /// A table of 64-bit addresses, in a program that is not relocated.
    fn absolute_table(&self, table: u32, entries: u32, first: u32, last: u32) -> Vec<u32> {
        (0..entries.min(MAX_TABLE))
            .map_while(|entry| {
                let word = self.elf.word64(table.checked_add(entry * 8)?)?;
                let target = self.elf.address(word)?;
                (self.elf.is_code(target) && self.lands(target, first, last)).then_some(target)
            })
            .collect()
    }
}

/// Slots that the loader fills with the address of a symbol, sorted by place.
#[derive(Debug)]
pub(super) struct Slots(Vec<(u32, u32)>);

impl Slots {
    /// The slots of a file and the indexes of their symbols.
    pub fn new(elf: &Elf<'_>) -> Self {
        let mut slots: Vec<(u32, u32)> = elf
            .relocations
            .iter()
            .filter_map(|relocation| match relocation.written {
                Written::Slot(symbol) => Some((relocation.place, symbol)),
                _ => None,
            })
            .collect();
        slots.sort_unstable();
        slots.dedup_by_key(|slot| slot.0);
        Self(slots)
    }

    /// The symbol whose address a slot gets.
    pub fn symbol(&self, place: u32) -> Option<u32> {
        let (first, last) = (self.0.first()?.0, self.0.last()?.0);
        if place < first || place > last {
            return None;
        }
        let index = self.0.binary_search_by_key(&place, |slot| slot.0).ok()?;
        self.0.get(index).map(|slot| slot.1)
    }

    /// All slots and symbols.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        self.0.iter().copied()
    }
}
