//! Which numbers a register can hold at a place: backward slicing over all paths, through jumps and through calls.
//!
//! A state is a place in the code and where the value lies there, with what is still done to it on the way to the site.
//! Every predecessor of a state is followed: the instruction before, every jump to it, every call of the function whose
//! first instruction it is. A path ends with a constant, at a function that code outside of the file can enter (the
//! value then comes from there), or as unknown. Nothing that is not understood is skipped: it ends the path as unknown.
//!
//! One assumption is made, that every compiler makes as well: a spilled value whose address is never computed is
//! changed by nothing but stores through the same base register.

use std::collections::HashSet;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::code::{Code, Decode, Kind};
use super::elf::{Elf, Written};

/// Most states of one slice.
const MAX_STATES: usize = 1 << 13;
/// Most ways between states of all slices of one file.
const MAX_ALL_STATES: usize = 1 << 18;
/// References that are looked at as fast as one way is followed.
const NEAR: usize = 64;

/// What a slice needs to know of a machine and its calling convention.
#[derive(Debug)]
pub(super) struct Abi {
    /// Stack pointer.
    pub stack: u8,
    /// Frame pointer.
    pub frame: u8,
    /// Where the kernel reads the number of a system call.
    pub number: u8,
    /// Registers that a called function may change.
    pub clobbered: u32,
    /// Registers in which a C or Rust function returns.
    pub results: &'static [u8],
    /// Registers of the first arguments of a C function.
    pub arguments: &'static [u8],
    /// How many arguments go into registers.
    pub register_arguments: u8,
    /// Bytes that a call pushes.
    pub return_address: i64,
    /// Length of every instruction, where they all have the same.
    pub fixed_length: Option<u32>,
}

impl Abi {
    /// Where a C function finds an argument at its first instruction.
    pub fn argument(&self, index: u8) -> Place {
        match self.arguments.get(usize::from(index)) {
            Some(register) => Place::Register(*register),
            None => Place::Memory {
                base: self.stack,
                offset: self.return_address + 8 * i64::from(index.saturating_sub(self.register_arguments)),
            },
        }
    }
}

/// A register, or memory at a register's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Place {
    /// A general register, by the machine's number of it.
    Register(u8),
    /// Memory.
    Memory {
        /// Register that holds the address.
        base: u8,
        /// Added to it.
        offset: i64,
    },
}

/// Where an assigned value comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    Constant(u64),
    Choice(u64, u64),
    Place(Place),
    /// The address, counted from the file's base.
    Address(u32),
    /// What memory holds at an address.
    Global(u32),
    Opaque,
}

/// What is done to a value: masked, then added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct How {
    mask: u64,
    add: u64,
}

impl How {
    pub const SAME: Self = Self { mask: u64::MAX, add: 0 };

    pub fn added(add: u64) -> Self {
        Self { mask: u64::MAX, add }
    }

    pub fn masked(mask: u64, add: u64) -> Self {
        Self { mask, add }
    }

    /// Whether nothing is done.
    pub fn is_same(self) -> bool {
        self == Self::SAME
    }

    fn of(self, value: u64) -> u64 {
        (value & self.mask).wrapping_add(self.add)
    }

    /// This after `first`, when that can be written the same way.
    fn after(self, first: Self) -> Option<Self> {
        if self.mask == u64::MAX {
            Some(Self {
                mask: first.mask,
                add: first.add.wrapping_add(self.add),
            })
        } else if first.add == 0 || (first.add & !self.mask == 0 && first.mask & first.add == 0) {
            Some(Self {
                mask: first.mask & self.mask,
                add: (first.add & self.mask).wrapping_add(self.add),
            })
        } else {
            None
        }
    }
}

/// An assignment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Move {
    pub to: Place,
    pub from: Source,
    pub how: How,
}

/// Memory that an instruction writes without a known value.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Store {
    #[default]
    None,
    At {
        base: u8,
        offset: i64,
        size: u8,
    },
    Anywhere,
}

/// What an instruction does. Places are read as they are before it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Step {
    pub length: u32,
    /// Control never goes on to the next instruction.
    pub ends: bool,
    /// It calls a function.
    pub call: bool,
    /// It goes back to the caller.
    pub returns: bool,
    /// A register and the constant that it is compared with.
    pub compares: Option<(u8, u64)>,
    /// It jumps when the compared were equal, or when they were not.
    pub jumps_if_equal: Option<bool>,
    /// Registers that get an unknown value.
    pub writes: u32,
    pub moves: [Option<Move>; 3],
    /// The assignments may also not happen.
    pub maybe: bool,
    /// Width of an assignment to memory.
    pub stored: u8,
    pub store: Store,
}

impl Step {
    pub fn assign(&mut self, to: Place, from: Source, how: How) {
        if let Some(free) = self.moves.iter_mut().find(|place| place.is_none()) {
            *free = Some(Move { to, from, how });
        }
    }
}

/// Why a number is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Why {
    /// It is read from memory that the program changes: at this distance from a pointer, where that is known.
    Memory(Option<i64>),
    /// It is what a function returns.
    Returned,
    /// It is computed.
    Computed,
    /// No way to the instruction was found.
    Unreached,
    /// More paths lead there than are followed.
    TooComplex,
    /// It comes from a caller that cannot be seen.
    Caller,
    /// It is the 32-bit gate, whose numbers are those of another machine.
    Gate32,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Memory(_) => "it is read from memory that the program changes",
            Self::Returned => "it is what a function returns",
            Self::Computed => "it is computed",
            Self::Unreached => "no way to the instruction was found",
            Self::TooComplex => "more ways lead there than are followed",
            Self::Caller => "it comes from a caller that cannot be seen",
            Self::Gate32 => "it is the 32-bit gate, whose numbers are those of another machine",
        })
    }
}

/// The numbers that reach a place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// A number, and the function in which it is set: it counts when that function can run.
    pub numbers: Vec<(u32, u32)>,
    /// Functions that code outside of the file can enter, and where the number is then.
    pub open: Vec<(u32, Place)>,
    /// Functions in which the number becomes unknown, and why.
    pub unknown: Vec<(u32, Why)>,
}

impl Slice {
    /// Adds a number that a function sets; the kernel reads 32 bits of it.
    fn add(&mut self, value: u64, function: u32) {
        self.numbers
            .push((u32::try_from(value & 0xffff_ffff).unwrap_or_default(), function));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    at: u32,
    place: Place,
    how: How,
    /// The address of the memory was computed: calls and other stores may change it.
    escaped: bool,
}

/// Slices of one file.
pub(super) struct Slicer<'a, 'b> {
    elf: &'a Elf<'b>,
    code: &'a Code,
    decoder: &'a mut dyn Decode,
    abi: &'static Abi,
    /// Jumps and calls by target.
    jumps: Rc<Vec<(u32, u32)>>,
    calls: Rc<Vec<(u32, u32)>>,
    /// Jumps whose targets are not known, by place.
    unknown_jumps: Vec<u32>,
    /// Addresses that code outside of the file, or a pointer, can enter; sorted.
    open: &'a [u32],
    relocated: Vec<u32>,
    /// Instructions by the data that they refer to; of a Go program only.
    uses: Option<Vec<(u32, u32)>>,
    left: usize,
}

impl<'a, 'b> Slicer<'a, 'b> {
    pub fn new(
        elf: &'a Elf<'b>,
        code: &'a Code,
        decoder: &'a mut dyn Decode,
        abi: &'static Abi,
        open: &'a [u32],
    ) -> Self {
        let by_target = |kind: Kind| {
            let mut found: Vec<(u32, u32)> = code
                .events
                .iter()
                .filter(|event| event.kind == kind)
                .map(|event| (event.target, event.at))
                .collect();
            found.sort_unstable();
            found
        };
        let mut relocated: Vec<u32> = elf
            .relocations
            .iter()
            .filter(|relocation| !matches!(relocation.written, Written::Slot(_)))
            .map(|relocation| relocation.place)
            .collect();
        relocated.sort_unstable();
        Self {
            elf,
            code,
            decoder,
            abi,
            jumps: Rc::new(by_target(Kind::Jump)),
            calls: Rc::new(by_target(Kind::Call)),
            unknown_jumps: code
                .events
                .iter()
                .filter(|event| event.kind == Kind::TableJump)
                .map(|event| event.at)
                .collect(),
            open,
            relocated,
            uses: None,
            left: MAX_ALL_STATES,
        }
    }

    /// Takes package variables that are never written for what they are: Go keeps some numbers of calls in them. A Go
    /// compiler refers to a package variable by its own address and by nothing else, so its writers can be seen.
    pub fn know_variables(&mut self) {
        let data = self.code.events.iter().filter(|event| event.kind == Kind::Data);
        let mut uses: Vec<(u32, u32)> = data.map(|event| (event.target, event.at)).collect();
        uses.sort_unstable();
        self.uses = Some(uses);
    }

    /// Whether every instruction that refers to data only loads it.
    fn is_only_loaded(&mut self, address: u32) -> bool {
        let Some(uses) = &self.uses else { return false };
        let uses = sources(uses, address);
        self.left = self.left.saturating_sub(uses.len());
        uses.iter().all(|(_, at)| {
            let moves = self.decoder.step(*at).map(|step| step.moves);
            matches!(moves, Some([Some(Move { to: Place::Register(_), from: Source::Global(from), .. }), None, None]) if from == address)
        })
    }

    /// The numbers that the kernel's register can hold at a site.
    pub fn site(&mut self, at: u32) -> Slice {
        self.slice(at, Place::Register(self.abi.number))
    }

    /// How far from one pointer the kernel's first arguments lie in memory at a site; fewer where that is not known.
    pub fn structure(&mut self, at: u32) -> Vec<i64> {
        let registers = self.abi.arguments.iter().take(3).copied();
        let offset = |register| match self.slice(at, Place::Register(register)) {
            Slice { numbers, open, unknown } if numbers.is_empty() && open.is_empty() => match unknown[..] {
                [(_, Why::Memory(offset))] => offset,
                _ => None,
            },
            _ => None,
        };
        registers.map_while(offset).collect()
    }

    /// The values of a C argument at a call or jump; a call has not pushed its return address yet.
    pub fn argument(&mut self, at: u32, index: u8, is_call: bool) -> Slice {
        let place = match self.abi.argument(index) {
            Place::Memory { base, offset } if is_call => Place::Memory {
                base,
                offset: offset - self.abi.return_address,
            },
            place => place,
        };
        self.slice(at, place)
    }

    fn slice(&mut self, at: u32, place: Place) -> Slice {
        let mut slice = Slice::default();
        let mut seen = HashSet::new();
        let first = State {
            at,
            place,
            how: How::SAME,
            escaped: false,
        };
        let mut work = vec![first];
        seen.insert(first);
        while let Some(state) = work.pop() {
            if seen.len() > MAX_STATES || self.left == 0 {
                slice.unknown.push((self.function(state.at), Why::TooComplex));
                break;
            }
            let mut next = Vec::new();
            if !self.back(state, &mut slice, &mut next) {
                slice.unknown.push((self.function(state.at), Why::TooComplex));
                break;
            }
            self.left = self.left.saturating_sub(next.len().max(1));
            work.extend(next.into_iter().filter(|state| seen.insert(*state)));
        }
        slice.numbers.sort_unstable();
        slice.numbers.dedup();
        slice.open.sort_unstable();
        slice.open.dedup();
        slice.unknown.sort_unstable();
        slice.unknown.dedup();
        slice
    }

    fn function(&self, at: u32) -> u32 {
        self.code.start_of(at).unwrap_or(at)
    }

    /// Follows a state to everything that can come before it; false where that is more than a slice may have.
    fn back(&mut self, state: State, slice: &mut Slice, next: &mut Vec<State>) -> bool {
        let mut found = false;
        for before in self.before(state.at) {
            found = true;
            if let Some(value) = self.fixed(before, false, state.place) {
                slice.add(state.how.of(value), self.function(before));
                continue;
            }
            if let Some(step) = self.decoder.step(before) {
                self.undo(state, before, step, slice, next);
            }
        }
        let (jumps, calls) = (self.jumps.clone(), self.calls.clone());
        let (jumps, calls) = (sources(&jumps, state.at), sources(&calls, state.at));
        if jumps.len() + calls.len() > MAX_STATES {
            return false;
        }
        for (_, source) in jumps {
            found = true;
            match self.fixed(*source, true, state.place) {
                Some(value) => slice.add(state.how.of(value), self.function(*source)),
                None => next.push(State { at: *source, ..state }),
            }
        }
        found |= self.unknown(state, slice, next);
        if next.len() > MAX_STATES {
            return false;
        }
        let open = self.open.binary_search(&state.at).is_ok();
        if open || !calls.is_empty() {
            found = true;
            match state.place {
                Place::Memory { base, .. } if base != self.abi.stack && !self.is_argument(base) => {
                    slice.unknown.push((self.function(state.at), Why::Memory(None)));
                }
                place => {
                    if open {
                        if state.how == How::SAME {
                            slice.open.push((state.at, place));
                        } else {
                            slice.unknown.push((state.at, Why::Computed));
                        }
                    }
                    let place = match place {
                        Place::Memory { base, offset } if base == self.abi.stack => Place::Memory {
                            base,
                            offset: offset - self.abi.return_address,
                        },
                        place => place,
                    };
                    next.extend(calls.iter().map(|(_, at)| State {
                        at: *at,
                        place,
                        ..state
                    }));
                }
            }
        }
        // Behind a call that never comes back there is nothing but padding.
        if !found && !self.is_behind_endless(state.at) {
            slice.unknown.push((self.function(state.at), Why::Unreached));
        }
        true
    }

    /// The value that a comparison gives a register on one side of the jump behind it: compilers use a register that has
    /// just been found to be zero as the number 0.
    fn fixed(&mut self, jump: u32, taken: bool, place: Place) -> Option<u64> {
        let Place::Register(register) = place else { return None };
        if self.decoder.step(jump)?.jumps_if_equal? != taken || !sources(&self.jumps, jump).is_empty() {
            return None;
        }
        let [before] = self.before(jump)[..] else { return None };
        let (compared, value) = self.decoder.step(before)?.compares?;
        (compared == register).then_some(value)
    }

    fn is_argument(&self, register: u8) -> bool {
        self.abi.arguments.contains(&register)
    }

    /// Jumps to addresses that could not be read lead to every block of their function.
    fn unknown(&self, state: State, slice: &mut Slice, next: &mut Vec<State>) -> bool {
        let Some(range) = self.code.range(state.at) else {
            return false;
        };
        let begins_block = !self.code.is_flowed_into(state.at) || !sources(&self.jumps, state.at).is_empty();
        if !begins_block || state.at == range.start {
            return false;
        }
        let mut found = false;
        if range.has_unknown_jumps {
            let from = self.unknown_jumps.partition_point(|at| *at < range.start);
            for at in self.unknown_jumps.get(from..).unwrap_or_default() {
                if *at >= range.end || next.len() > MAX_STATES {
                    break;
                }
                found = true;
                next.push(State { at: *at, ..state });
            }
        }
        if range.has_landing_pads && !self.code.is_flowed_into(state.at) && sources(&self.jumps, state.at).is_empty() {
            found = true;
            slice.unknown.push((self.function(state.at), Why::Returned));
        }
        found
    }

    /// Instructions that end where `at` begins and go on to it.
    fn before(&mut self, at: u32) -> Vec<u32> {
        if !self.code.is_flowed_into(at) {
            return Vec::new();
        }
        match self.abi.fixed_length {
            Some(length) => at
                .checked_sub(length)
                .filter(|before| self.code.is_instruction(*before) && !self.code.calls_endless(*before))
                .into_iter()
                .collect(),
            None => (1..=15)
                .filter_map(|length| at.checked_sub(length))
                .filter(|before| self.code.is_instruction(*before))
                .filter(|before| {
                    self.decoder
                        .step(*before)
                        .is_some_and(|step| !step.ends && before.checked_add(step.length) == Some(at))
                })
                .filter(|before| !self.code.calls_endless(*before))
                .collect(),
        }
    }

    fn is_behind_endless(&mut self, at: u32) -> bool {
        let from = self
            .code
            .events
            .partition_point(|event| event.at < at.saturating_sub(5));
        let to = self.code.events.partition_point(|event| event.at < at);
        let events = self.code.events.get(from..to).unwrap_or_default();
        // One jump through a table is as many references as the table has entries.
        self.left = self.left.saturating_sub(events.len() / NEAR);
        let calls = events.iter().filter(|event| event.kind == Kind::Call);
        let calls: Vec<u32> = calls.map(|event| event.at).collect();
        calls.into_iter().any(|call| {
            let next = self.decoder.step(call).and_then(|step| call.checked_add(step.length));
            next == Some(at) && self.code.calls_endless(call)
        })
    }

    /// What a place held before an instruction.
    fn undo(&mut self, state: State, before: u32, step: Step, slice: &mut Slice, next: &mut Vec<State>) {
        let function = self.function(before);
        let mut state = State { at: before, ..state };
        if let Place::Memory { base, offset } = state.place {
            // First the address: where did the base register point before?
            let moved = step
                .moves
                .iter()
                .flatten()
                .find(|change| change.to == Place::Register(base));
            match moved {
                Some(Move {
                    from: Source::Place(Place::Register(from)),
                    how,
                    ..
                }) if how.mask == u64::MAX && !step.maybe => {
                    let escapes = *from == self.abi.stack && base != self.abi.stack && base != self.abi.frame;
                    state.escaped |= escapes;
                    state.place = Place::Memory {
                        base: *from,
                        offset: offset.wrapping_add(how.add.cast_signed()),
                    };
                }
                Some(_) => {
                    slice.unknown.push((function, Why::Memory(Some(offset))));
                    return;
                }
                None if step.writes >> base & 1 == 1 || (step.call && self.abi.clobbered >> base & 1 == 1) => {
                    slice.unknown.push((function, Why::Memory(Some(offset))));
                    return;
                }
                None => {}
            }
            if let Some(end) = self.stored(state, step, slice, function, next) {
                if !end {
                    next.push(state);
                }
                return;
            }
            next.push(state);
            return;
        }
        let Place::Register(register) = state.place else { return };
        let mut matched = false;
        for change in step.moves.iter().flatten().filter(|change| change.to == state.place) {
            matched = true;
            self.assigned(state, *change, slice, function, next);
        }
        if matched && !step.maybe {
            return;
        }
        let clobbered = step.call && self.abi.clobbered >> register & 1 == 1;
        if clobbered || step.writes >> register & 1 == 1 {
            slice
                .unknown
                .push((function, if step.call { Why::Returned } else { Why::Computed }));
            return;
        }
        next.push(state);
    }

    /// Whether an instruction writes the memory of a state: none when it does not touch it.
    fn stored(
        &mut self,
        state: State,
        step: Step,
        slice: &mut Slice,
        function: u32,
        next: &mut Vec<State>,
    ) -> Option<bool> {
        let Place::Memory { base, offset } = state.place else {
            return None;
        };
        let private = base == self.abi.stack || base == self.abi.frame;
        let unknown = |slice: &mut Slice| {
            slice.unknown.push((function, Why::Memory(Some(offset))));
            Some(true)
        };
        let overlaps = |at: i64, size: u8| at < offset.saturating_add(8) && offset < at.saturating_add(i64::from(size));
        for change in step.moves.iter().flatten() {
            let Place::Memory { base: to, offset: at } = change.to else {
                continue;
            };
            if to == base {
                if at == offset && step.stored >= 4 {
                    self.assigned(state, *change, slice, function, next);
                    return Some(true);
                }
                // Numbers are 32 bits wide; a neighbour beyond that does not matter.
                if at < offset.saturating_add(4) && offset < at.saturating_add(i64::from(step.stored)) {
                    return unknown(slice);
                }
            } else if !private || state.escaped {
                return unknown(slice);
            }
        }
        match step.store {
            Store::At {
                base: to,
                offset: at,
                size,
            } if to == base && overlaps(at, size) => return unknown(slice),
            Store::At { base: to, .. } if to != base && (!private || state.escaped) => return unknown(slice),
            Store::Anywhere if !private || state.escaped => return unknown(slice),
            _ => {}
        }
        if step.call && (!private || state.escaped) {
            return unknown(slice);
        }
        None
    }

    fn assigned(&mut self, state: State, change: Move, slice: &mut Slice, function: u32, next: &mut Vec<State>) {
        let Some(how) = state.how.after(change.how) else {
            slice.unknown.push((function, Why::Computed));
            return;
        };
        let only_loaded = match change.from {
            Source::Global(address) => self.is_only_loaded(address),
            _ => false,
        };
        let mut constant = |value: u64| slice.add(how.of(value), function);
        match change.from {
            Source::Constant(value) => constant(value),
            Source::Choice(one, other) => {
                constant(one);
                constant(other);
            }
            Source::Address(address) => constant(self.elf.base.wrapping_add(u64::from(address))),
            Source::Place(place) => next.push(State {
                place,
                how,
                escaped: false,
                ..state
            }),
            Source::Global(address) => {
                let writable = self.elf.segment(address).is_none_or(|segment| segment.writable);
                let fixed = self.relocated.binary_search(&address).is_err() && (!writable || only_loaded);
                match self.elf.word32(address).filter(|_| fixed) {
                    Some(value) => constant(u64::from(value)),
                    None => slice.unknown.push((function, Why::Memory(None))),
                }
            }
            Source::Opaque => slice.unknown.push((function, Why::Computed)),
        }
    }
}

fn sources(sorted: &[(u32, u32)], target: u32) -> &[(u32, u32)] {
    let from = sorted.partition_point(|(to, _)| *to < target);
    let to = sorted.partition_point(|(to, _)| *to <= target);
    sorted.get(from..to).unwrap_or_default()
}
