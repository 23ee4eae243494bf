//! Calls through a register that holds a function's address: compilers load the address once where they call it often.
//!
//! Whoever has the address of a function can give it anything, so a number that comes from there is not known. Where
//! every use of the loaded address can be seen and is a call, these are calls of that function and nothing else. The
//! register, and every one that it is copied to, is followed over every way that leads on from the load. The address is
//! given up as gone elsewhere when an instruction reads it for anything but a copy, call or jump, when it lies where a
//! called function, the kernel or the caller looks for values, when the way goes on to where nothing shows, and when a
//! limit is passed.

use std::collections::{HashMap, HashSet};

use super::code::{Code, Decode, Event, Kind};
use super::slice::{Abi, Move, Place, Source, Step};

/// Most instructions that are followed from one load, and from all of a file.
const MAX_STEPS: usize = 1 << 12;
const MAX_ALL_STEPS: usize = 1 << 20;
/// Bytes that are looked at as fast as one instruction is followed.
const NEAR: usize = 64;

/// What an instruction does with a register. Whoever reads one or two bytes of an address does not have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Treats {
    /// It neither reads nor overwrites it.
    Leaves,
    /// It overwrites it, or a part: what is left then is the address of nothing.
    Overwrites,
    /// It calls what the register points to.
    Calls,
    /// It jumps there.
    Jumps,
    /// Anything else.
    Reads,
}

/// Turns loads of addresses that are only called into the calls.
pub(super) fn follow(code: &mut Code, decoder: &mut dyn Decode, abi: &Abi, wanted: impl Fn(u32) -> bool) {
    let enters = code.events.iter().any(|event| event.kind == Kind::Site);
    let loads: Vec<Event> = code
        .events
        .iter()
        .filter(|event| match event.kind {
            Kind::SlotUse => wanted(event.target),
            // Whose number matters to functions of the file itself is known later.
            Kind::Taken => enters,
            _ => false,
        })
        .copied()
        .collect();
    let mut left = MAX_ALL_STEPS;
    let (mut calls, mut loaded) = (Vec::new(), Vec::new());
    for load in loads {
        let Some(register) = decoder.step(load.at).and_then(|step| register(&step, load.target)) else {
            continue;
        };
        let is_slot = load.kind == Kind::SlotUse;
        let mut walk = Walk {
            code,
            decoder,
            abi,
            is_slot,
            left: MAX_STEPS.min(left),
            hidden: HashMap::new(),
        };
        let most = walk.left;
        let found = walk.uses(load.at, register);
        left -= most - walk.left;
        let Some(found) = found else { continue };
        calls.extend(found.into_iter().map(|(at, how)| Event {
            at,
            kind: match (is_slot, how) {
                (true, Treats::Jumps) => Kind::SlotJump,
                (true, _) => Kind::SlotCall,
                (false, Treats::Jumps) => Kind::Jump,
                (false, _) => Kind::Call,
            },
            target: load.target,
        }));
        loaded.push(load);
    }
    // Both are sorted.
    let mut loaded = loaded.into_iter().peekable();
    code.events.retain(|event| loaded.next_if_eq(event).is_none());
    code.events.extend(calls);
    code.events.sort();
    code.events.dedup();
}

/// The register that an instruction loads with an address, if that is all it does.
fn register(step: &Step, target: u32) -> Option<u8> {
    let [
        Some(Move {
            to: Place::Register(to),
            from,
            how,
        }),
        None,
        None,
    ] = step.moves
    else {
        return None;
    };
    let loads = matches!(from, Source::Global(address) | Source::Address(address) if address == target);
    (loads && how.is_same() && !step.maybe && step.writes == 0).then_some(to)
}

/// The register to which an instruction copies all of another, if that is all it does.
fn copy(step: &Step, from: u8) -> Option<u8> {
    let [
        Some(Move {
            to: Place::Register(to),
            from: Source::Place(Place::Register(read)),
            how,
        }),
        None,
        None,
    ] = step.moves
    else {
        return None;
    };
    (read == from && how.is_same() && !step.maybe && step.writes == 0).then_some(to)
}

/// An instruction, and the registers that hold the address before it, by their bits.
type At = (u32, u32);

struct Walk<'a> {
    code: &'a Code,
    decoder: &'a mut dyn Decode,
    abi: &'a Abi,
    /// The address is that of a function which does nothing but look up a symbol or enter the kernel.
    is_slot: bool,
    left: usize,
    /// Blocks that the unwinder may enter, by the start of their range.
    hidden: HashMap<u32, Vec<u32>>,
}

impl Walk<'_> {
    /// The calls and jumps through the register behind its load, and through its copies; none where the address may be
    /// used in another way.
    fn uses(&mut self, load: u32, register: u8) -> Option<Vec<(u32, Treats)>> {
        let mut found = Vec::new();
        let first = (load.checked_add(self.decoder.step(load)?.length)?, 1 << register);
        let (mut work, mut seen) = (vec![first], HashSet::from([first]));
        while let Some(at) = work.pop() {
            self.left = self.left.checked_sub(1)?;
            for next in self.on(at, &mut found)? {
                if seen.insert(next) {
                    work.push(next);
                }
            }
        }
        Some(found)
    }

    /// Where registers still hold the address after an instruction.
    fn on(&mut self, (at, held): At, found: &mut Vec<(u32, Treats)>) -> Option<Vec<At>> {
        if !self.code.is_instruction(at) {
            return None;
        }
        let step = self.decoder.step(at)?;
        let range = *self.code.range(at)?;
        let events = self.code.events_within(at, at.saturating_add(1));
        let is = |kind: Kind| events.iter().any(|event| event.kind == kind);
        let (mut after, mut copied) = (held, 0);
        for register in (0..u32::BITS).filter(|register| held >> register & 1 == 1) {
            let is_kept = self.abi.clobbered >> register & 1 == 0;
            let register = u8::try_from(register).ok()?;
            match self.decoder.treats(at, register) {
                Treats::Reads => match copy(&step, register) {
                    Some(to) => copied |= 1 << to,
                    None => return None,
                },
                Treats::Overwrites => after &= !(1 << register),
                Treats::Jumps => {
                    found.push((at, Treats::Jumps));
                    // The function that is jumped to finds what else holds its address.
                    return (held == 1 << register).then(Vec::new);
                }
                // The kernel calls no argument of its calls, and a symbol is looked up by the first three.
                Treats::Calls if self.is_looked_at(register) => return None,
                Treats::Calls => found.push((at, Treats::Calls)),
                // Whoever is returned to finds results in some registers that are not kept, and nothing in the others.
                Treats::Leaves if step.returns && self.is_slot && !is_kept && !self.is_result(register) => {
                    after &= !(1 << register);
                }
                // A called function, or the kernel, finds arguments in registers that are not kept.
                Treats::Leaves if (step.call || is(Kind::Site)) && !is_kept => return None,
                Treats::Leaves => {}
            }
            if step.call && !is_kept {
                after &= !(1 << register);
            }
        }
        after |= copied;
        if after == 0 {
            return Some(Vec::new());
        }
        let leaves = is(Kind::Return) || is(Kind::SlotJump) || (is(Kind::TableJump) && range.has_unknown_jumps);
        if leaves {
            return None;
        }
        let mut next: Vec<u32> = Vec::new();
        let behind = at.checked_add(step.length)?;
        if !step.ends && !self.code.calls_endless(at) && self.code.is_flowed_into(behind) {
            next.push(behind);
        }
        let jumps = events.iter().filter(|event| event.kind == Kind::Jump);
        next.extend(jumps.map(|event| event.target));
        if step.call && range.has_landing_pads {
            next.extend(self.hidden(range.start, range.end)?);
        }
        Some(next.into_iter().map(|at| (at, after)).collect())
    }

    /// Whether the function whose address a register holds can do something with it as an argument.
    fn is_looked_at(&self, register: u8) -> bool {
        let arguments = self.abi.arguments;
        let arguments = if self.is_slot {
            arguments.get(..3).unwrap_or(arguments)
        } else {
            arguments
        };
        arguments.contains(&register)
    }

    fn is_result(&self, register: u8) -> bool {
        self.abi.results.contains(&register)
    }

    /// The blocks of a range that neither the code before them nor a jump within it leads to; a compiler puts the landing
    /// pads of a call into the range of that call.
    fn hidden(&mut self, start: u32, end: u32) -> Option<Vec<u32>> {
        if let Some(known) = self.hidden.get(&start) {
            return Some(known.clone());
        }
        let events = self.code.events_within(start, end);
        self.left = self.left.checked_sub(events.len() + (end - start) as usize / NEAR)?;
        let jumps = events.iter().filter(|event| event.kind == Kind::Jump);
        let targets: HashSet<u32> = jumps.map(|event| event.target).collect();
        let is_hidden = |at: &u32| {
            self.code.is_instruction(*at) && !self.code.is_flowed_into(*at) && !targets.contains(at) && *at != start
        };
        let found: Vec<u32> = (start..end).filter(is_hidden).collect();
        self.hidden.insert(start, found.clone());
        Some(found)
    }
}
