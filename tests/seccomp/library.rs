//! libseccomp, which runc and crun compile profiles with, loaded as they load it.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::sync::LazyLock;

use assay::seccomp::{Action, Argument, Entry, Operator, Profile};

use crate::bpf::Filter;

#[repr(C)]
struct Comparison {
    argument: c_uint,
    operator: c_uint,
    value: u64,
    value_two: u64,
}

type Init = unsafe extern "C" fn(u32) -> *mut c_void;
type Release = unsafe extern "C" fn(*mut c_void);
type RuleAddArray = unsafe extern "C" fn(*mut c_void, u32, c_int, c_uint, *const Comparison) -> c_int;
type ExportBpf = unsafe extern "C" fn(*mut c_void, c_int) -> c_int;
type ResolveName = unsafe extern "C" fn(*const c_char) -> c_int;

struct Library {
    init: Init,
    release: Release,
    rule_add_array: RuleAddArray,
    export_bpf: ExportBpf,
    resolve_name: ResolveName,
}

static LIBRARY: LazyLock<Library> = LazyLock::new(|| {
    // SAFETY: the library's constructors touch nothing of this program, and the types are those of seccomp.h.
    unsafe {
        let library = libc::dlopen(c"libseccomp.so.2".as_ptr(), libc::RTLD_NOW);
        assert!(!library.is_null(), "libseccomp.so.2 comes with runc");
        let symbol = |name: &std::ffi::CStr| {
            let symbol = libc::dlsym(library, name.as_ptr());
            assert!(!symbol.is_null(), "{name:?}");
            symbol
        };
        Library {
            init: std::mem::transmute::<*mut c_void, Init>(symbol(c"seccomp_init")),
            release: std::mem::transmute::<*mut c_void, Release>(symbol(c"seccomp_release")),
            rule_add_array: std::mem::transmute::<*mut c_void, RuleAddArray>(symbol(c"seccomp_rule_add_array")),
            export_bpf: std::mem::transmute::<*mut c_void, ExportBpf>(symbol(c"seccomp_export_bpf")),
            resolve_name: std::mem::transmute::<*mut c_void, ResolveName>(symbol(c"seccomp_syscall_resolve_name")),
        }
    }
});

/// The number of a call of this machine, if the library knows one.
pub fn number(name: &str) -> Option<u32> {
    let name = CString::new(name).unwrap();
    // SAFETY: the name is a terminated string and lives through the call.
    let number = unsafe { (LIBRARY.resolve_name)(name.as_ptr()) };
    u32::try_from(number).ok()
}

/// The filter that an OCI runtime makes of a profile, if the library takes its rules.
///
/// As runc does: an entry that does what the default does is left out, one that names an argument twice becomes a rule
/// for each condition, a name that the library does not know is left out.
pub fn compile(profile: &Profile) -> Option<Filter> {
    let default = action(profile.default_action, profile.default_errno_ret);
    // SAFETY: takes a number; the context is released below.
    let context = unsafe { (LIBRARY.init)(default) };
    assert!(!context.is_null());
    let mut accepted = true;
    for entry in &profile.syscalls {
        let action = action(entry.action, entry.errno_ret);
        if action == default {
            continue;
        }
        for number in entry.names.iter().filter_map(|name| number(name)) {
            for conditions in sets(entry) {
                let length = c_uint::try_from(conditions.len()).unwrap();
                let number = number.cast_signed();
                // SAFETY: the context is alive, and the comparisons are as many as said.
                let result = unsafe { (LIBRARY.rule_add_array)(context, action, number, length, conditions.as_ptr()) };
                accepted &= result == 0;
            }
        }
    }
    let filter = accepted.then(|| export(context));
    // SAFETY: the context is not used again.
    unsafe { (LIBRARY.release)(context) };
    filter
}

fn export(context: *mut c_void) -> Filter {
    // SAFETY: a terminated string and a flag; the descriptor that comes back is owned by the file.
    let mut file = unsafe {
        let descriptor = libc::memfd_create(c"filter".as_ptr(), libc::MFD_CLOEXEC);
        assert!(descriptor >= 0);
        File::from_raw_fd(descriptor)
    };
    // SAFETY: the context is alive and so is the descriptor.
    assert_eq!(unsafe { (LIBRARY.export_bpf)(context, file.as_raw_fd()) }, 0);
    file.rewind().unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    Filter::from_bytes(&bytes)
}

fn sets(entry: &Entry) -> Vec<Vec<Comparison>> {
    let mut indices: Vec<u32> = entry.args.iter().map(|argument| argument.index).collect();
    indices.sort_unstable();
    indices.dedup();
    if indices.len() == entry.args.len() {
        vec![entry.args.iter().map(comparison).collect()]
    } else {
        entry.args.iter().map(|argument| vec![comparison(argument)]).collect()
    }
}

fn comparison(argument: &Argument) -> Comparison {
    let operator = match argument.op {
        Operator::NotEqual => 1,
        Operator::Less => 2,
        Operator::LessOrEqual => 3,
        Operator::Equal => 4,
        Operator::GreaterOrEqual => 5,
        Operator::Greater => 6,
        Operator::MaskedEqual => 7,
    };
    Comparison {
        argument: argument.index,
        operator,
        value: argument.value,
        value_two: argument.value_two,
    }
}

fn action(action: Action, number: Option<u32>) -> u32 {
    let number = number.unwrap_or(1) & 0xffff;
    match action {
        Action::KillProcess => 0x8000_0000,
        Action::KillThread => 0,
        Action::Trap => 0x0003_0000,
        Action::Errno => 0x0005_0000 | number,
        Action::Notify => 0x7fc0_0000,
        Action::Trace => 0x7ff0_0000 | number,
        Action::Log => 0x7ffc_0000,
        Action::Allow => 0x7fff_0000,
    }
}
