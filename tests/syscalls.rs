//! System calls derived from real machine code: programs that are built here, each with the set that it must yield.

#![cfg(test)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use assay::syscalls::{Calls, Machine, Object, Order, Role, Summary, Why, close, close_all, name, summarise};
use proptest::prelude::*;

/// A C program without a library: calls by inline assembly, entered at `_start`.
const BARE: &str = r#"
typedef long L;
#define BARE __attribute__((noinline, noipa))
static inline __attribute__((always_inline)) L call(L n) {
    L r;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n) : "rcx", "r11", "memory");
    return r;
}
volatile int seed;
"#;

struct Built {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn build(compiler: &str, arguments: &[&str], extension: &str, source: &str) -> Built {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join(format!("program.{extension}"));
    let path = dir.path().join("program");
    std::fs::write(&input, source).unwrap();
    let output = Command::new(compiler)
        .args(arguments)
        .arg("-o")
        .arg(&path)
        .arg(&input)
        .env("GOCACHE", dir.path().join("cache"))
        .env("GO111MODULE", "off")
        .env("CGO_ENABLED", "0")
        .current_dir(dir.path())
        .output()
        .unwrap_or_else(|error| panic!("{compiler}: {error}; run tests/setup/install"));
    assert!(
        output.status.success(),
        "{compiler}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Built { _dir: dir, path }
}

fn bare(flags: &[&str], body: &str) -> Calls {
    let mut arguments = vec!["-O2", "-nostdlib", "-static", "-fno-stack-protector", "-fno-builtin"];
    arguments.extend(flags);
    let built = build("gcc", &arguments, "c", &format!("{BARE}{body}"));
    alone(&built.path)
}

fn alone(path: &Path) -> Calls {
    let summary = summarise(&std::fs::read(path).unwrap()).unwrap();
    close(&[Object {
        path: "program",
        summary: &summary,
        role: Role::Program,
    }])
}

/// Names without those that every program has by the facts.
fn names(calls: &Calls) -> Vec<&'static str> {
    let own = calls.calls.iter().filter(|(_, path)| !path.steps.is_empty());
    own.map(|(number, _)| name(Machine::X86_64, *number).unwrap()).collect()
}

/// A program with the libraries that the machine's loader finds for it.
fn with_libraries(path: &Path) -> Calls {
    let mut files = vec![(path.to_owned(), Role::Program)];
    let mut summaries: Vec<Summary> = Vec::new();
    let mut at = 0;
    while let Some((path, role)) = files.get(at).cloned() {
        at += 1;
        let summary = summarise(&std::fs::read(&path).unwrap()).unwrap();
        // musl's library is the loader too.
        let is_loader = |name: &str| name.starts_with("ld-") || name == "libc.so";
        for needed in summary.needed.iter().filter(|name| !is_loader(name)) {
            let file = Path::new("/lib/x86_64-linux-gnu").join(needed);
            if !files.iter().any(|(known, _)| *known == file) {
                files.push((file, Role::Library));
            }
        }
        if let (Role::Program, Some(loader)) = (role, &summary.interpreter) {
            files.push((PathBuf::from(loader), Role::Interpreter));
        }
        summaries.push(Summary::decode(&summary.encode().unwrap()).unwrap());
    }
    let objects: Vec<Object<'_>> = files
        .iter()
        .zip(&summaries)
        .map(|((path, role), summary)| Object {
            path: path.to_str().unwrap(),
            summary,
            role: *role,
        })
        .collect();
    close(&objects)
}

/// Calls that a program really makes, its own `execve` excepted.
fn traced(program: &Path, arguments: &[&str]) -> BTreeSet<String> {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let status = Command::new("strace")
        .args(["-f", "-qq", "-o"])
        .arg(&log)
        .arg(program)
        .args(arguments)
        .stdout(std::process::Stdio::null())
        .status()
        .expect("strace; run tests/setup/install");
    assert!(status.success(), "{} fails", program.display());
    let log = std::fs::read_to_string(log).unwrap();
    let calls = log.lines().skip(1).filter_map(|line| {
        let call = line.split_once(' ')?.1.trim_start();
        let call = call.strip_prefix("<... ").unwrap_or(call);
        let end = call.find(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'))?;
        (end > 0).then(|| call[..end].to_owned())
    });
    calls.collect()
}

fn assert_covers(program: &Path, arguments: &[&str], calls: &Calls) {
    assert_eq!(calls.unknown, [], "{}", program.display());
    let derived: BTreeSet<String> = calls
        .calls
        .keys()
        .map(|number| name(Machine::X86_64, *number).unwrap().to_owned())
        .collect();
    let made = traced(program, arguments);
    assert!(made.len() > 3, "nothing was traced");
    let missed: Vec<&String> = made.difference(&derived).collect();
    assert!(missed.is_empty(), "{}: missed {missed:?}", program.display());
}

#[test]
fn a_number_that_depends_on_a_branch_yields_both() {
    for flags in [&["-fPIE", "-static-pie"][..], &["-fno-pie", "-no-pie"]] {
        let calls = bare(
            flags,
            "void _start(void) { call(seed ? 102 : 104); call(60); for (;;); }",
        );
        assert_eq!(names(&calls), ["exit", "getuid", "getgid"]);
        assert_eq!(calls.unknown, []);
    }
}

#[test]
fn a_wrapper_is_resolved_at_its_callers() {
    let calls = bare(
        &[],
        "BARE L wrap(L a, L n) { return call(n) + a; }
         BARE L twice(L n) { return wrap(1, n) + wrap(2, n); }
         BARE L unused(void) { return wrap(1, 57); }
         void _start(void) { twice(39); wrap(seed, 110); call(60); for (;;); }",
    );
    assert_eq!(
        names(&calls),
        ["getpid", "exit", "getppid"],
        "fork has no caller that runs"
    );
    assert_eq!(calls.unknown, []);
    let path = &calls.calls[&39];
    assert_eq!(path.steps.first().map(|step| step.function.as_str()), Some("_start"));
    assert_eq!(path.steps.last().map(|step| step.function.as_str()), Some("wrap"));
}

#[test]
fn a_number_from_the_stack_is_found_where_it_was_put() {
    let calls = bare(
        &[],
        r#"BARE L seventh(L a, L b, L c, L d, L e, L f, L n) { return call(n) + a + b + c + d + e + f; }
           void pushed(void);
           __asm__(".globl pushed\npushed: push $186\npop %rax\nsyscall\nret\n");
           void low(void);
           __asm__(".globl low\nlow: xor %eax, %eax\nmov $24, %al\nsyscall\nret\n");
           void _start(void) { seventh(1, 2, 3, 4, 5, 6, 95); pushed(); low(); call(60); for (;;); }"#,
    );
    assert_eq!(names(&calls), ["sched_yield", "exit", "umask", "gettid"]);
    assert_eq!(calls.unknown, []);
}

#[test]
fn a_number_that_nothing_fixes_is_reported_with_its_place() {
    let from_memory = bare(&[], "void _start(void) { call(seed); call(60); for (;;); }");
    assert_eq!(from_memory.unknown.len(), 1, "{from_memory:?}");
    assert_eq!(from_memory.unknown[0].function, "_start");
    assert_eq!(from_memory.unknown[0].why, Why::Memory(None));
    assert_eq!(names(&from_memory), ["exit"]);

    let by_pointer = bare(
        &[],
        "BARE L wrap(L n) { return call(n); }
         L (*volatile pointer)(L) = wrap;
         void _start(void) { pointer(39); call(60); for (;;); }",
    );
    let reasons: Vec<Why> = by_pointer.unknown.iter().map(|site| site.why).collect();
    assert_eq!(reasons, [Why::Caller]);
}

#[test]
fn a_function_counts_when_something_points_to_it_and_not_before() {
    let body = "
        BARE L in_data(void) { return call(39); }
        BARE L computed(void) { return call(110); }
        BARE L unused(void) { return call(57); }
        L (*const table[])(void) = { in_data };
        L (*volatile sink)(void);
        void _start(void) { sink = seed ? computed : table[seed]; call(60); for (;;); }";
    for flags in [
        &["-fPIE", "-static-pie"][..],
        &["-fno-pie", "-no-pie"],
        &["-fno-pie", "-no-pie", "-s"],
        &["-fPIE", "-static-pie", "-s"],
    ] {
        assert_eq!(names(&bare(flags, body)), ["getpid", "exit", "getppid"], "{flags:?}");
    }
}

#[test]
fn every_case_of_a_jump_table_is_code() {
    let body = "
        BARE L pick(int c) {
            switch (c) {
                case 0: return call(39); case 1: return call(110) + 1; case 2: return call(102) + 2;
                case 3: return call(104) + 3; case 4: return call(107) * 4; case 5: return call(108) + 5;
                case 6: return call(186) + 6; default: return 0;
            }
        }
        void _start(void) { pick(seed); call(60); for (;;); }";
    let expected = [
        "getpid", "exit", "getuid", "getgid", "geteuid", "getegid", "getppid", "gettid",
    ];
    for flags in [
        &["-fPIE", "-static-pie"][..],
        &["-fno-pie", "-no-pie"],
        &["-fno-asynchronous-unwind-tables", "-s"],
    ] {
        let calls = bare(flags, body);
        assert_eq!(names(&calls), expected, "{flags:?}");
        assert_eq!(calls.unknown, [], "{flags:?}");
    }
}

#[test]
fn instructions_on_strings_have_no_number_as_operand() {
    let body = r#"
        BARE L copied(void) {
            L result;
            __asm__ volatile("movsb\nlodsq\nstosb\nmov $39, %%eax\nmovsb\nsyscall" : "=a"(result) : : "rsi", "rdi", "rcx", "r11", "memory");
            return result;
        }
        void _start(void) { copied(); call(60); for (;;); }"#;
    let calls = bare(&[], body);
    assert_eq!(names(&calls), ["getpid", "exit"]);
    assert_eq!(calls.unknown, []);
}

#[test]
fn code_that_runs_past_its_frame_entry_goes_on() {
    let calls = bare(
        &[],
        r#"void first(void);
           __asm__(".globl first\n.type first, @function\nfirst: .cfi_startproc\nmov $39, %eax\n.cfi_endproc\n.size first, . - first\n"
                   "syscall\nret\n");
           void _start(void) { first(); call(60); for (;;); }"#,
    );
    assert_eq!(names(&calls), ["getpid", "exit"]);
    assert_eq!(calls.unknown, []);
}

#[test]
fn bytes_among_code_that_nothing_runs_are_no_code() {
    let calls = bare(
        &[],
        r#"__asm__(".globl table\ntable: .byte 0xb8, 57, 0, 0, 0, 0x0f, 0x05, 0xc3\n");
           void _start(void) { call(60); for (;;); }"#,
    );
    assert_eq!(names(&calls), ["exit"]);
}

#[test]
fn programs_of_every_c_library_are_covered() {
    let source = r#"
        #include <pthread.h>
        #include <signal.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <time.h>
        #include <unistd.h>
        #include <sys/syscall.h>
        static void handler(int signal) { (void)signal; }
        static void *run(void *argument) { puts(argument); return 0; }
        int main(void) {
            pthread_t thread;
            struct timespec now;
            char *name = malloc(1 << 20);
            signal(SIGUSR1, handler);
            raise(SIGUSR1);
            pthread_create(&thread, 0, run, "thread");
            setgid(getgid());
            setuid(getuid());
            pthread_join(thread, 0);
            clock_gettime(CLOCK_REALTIME, &now);
            syscall(SYS_gettid);
            snprintf(name, 100, "%ld", (long)now.tv_sec);
            FILE *file = fopen("/dev/null", "w");
            fputs(name, file);
            fclose(file);
            return 0;
        }"#;
    for (compiler, flags) in [
        ("gcc", &["-O2", "-pthread"][..]),
        ("gcc", &["-O2", "-pthread", "-static"]),
        ("gcc", &["-O2", "-pthread", "-static-pie", "-s"]),
        ("musl-gcc", &["-O2"]),
        ("musl-gcc", &["-O2", "-static"]),
        ("musl-gcc", &["-O2", "-static", "-s"]),
    ] {
        let built = build(compiler, flags, "c", source);
        let calls = with_libraries(&built.path);
        assert_covers(&built.path, &[], &calls);
        assert!(calls.calls.len() < 120, "{compiler} {flags:?}: {}", calls.calls.len());
    }
}

#[test]
fn a_go_program_is_covered_stripped_or_not() {
    let source = r#"package main

import (
	"fmt"
	"net"
	"os"
	"syscall"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() { connection, _ := listener.Accept(); connection.Write([]byte("x")) }()
	connection, _ := net.Dial("tcp", listener.Addr().String())
	connection.Read(make([]byte, 1))
	syscall.Setgid(os.Getgid())
	_, _, _ = syscall.Syscall(syscall.SYS_GETPGID, 0, 0, 0)
	fmt.Println(os.Getpid())
}
"#;
    for flags in [&["build"][..], &["build", "-ldflags=-s -w"]] {
        let built = build("go", flags, "go", source);
        let calls = alone(&built.path);
        assert_covers(&built.path, &[], &calls);
        assert!(
            names(&calls).contains(&"getpgid"),
            "a number passed through syscall.Syscall"
        );
        assert!(calls.calls.len() <= 95, "{}", calls.calls.len());
    }
}

#[test]
fn a_rust_program_is_covered() {
    let source = r#"fn main() {
        let thread = std::thread::spawn(|| std::fs::read_to_string("/proc/self/stat").unwrap().len());
        println!("{}", thread.join().unwrap());
    }"#;
    // Rust loads the address of `syscall` into a register where it calls it more than once.
    let built = build("rustc", &["-O"], "rs", source);
    let calls = with_libraries(&built.path);
    assert_covers(&built.path, &[], &calls);
}

#[test]
fn a_function_that_is_only_called_through_a_register_has_known_callers() {
    let program = |held: &str| {
        bare(
            &["-fPIE", "-static-pie"],
            &format!(
                r#"BARE L wrap(L n) {{ return call(n); }}
                   BARE L other(L (*f)(L)) {{ return f(seed); }}
                   __asm__(".globl held\n.type held, @function\n"
                           "held: push %rbx\nlea wrap(%rip), %rbx\nagain: mov $39, %edi\ncall *%rbx\n"
                           "{held}\nmov $110, %edi\ncall *%rbx\ntest %eax, %eax\nje again\npop %rbx\nret\n"
                           ".size held, . - held\n");
                   void held(void);
                   void _start(void) {{ held(); call(60); for (;;); }}"#
            ),
        )
    };
    let calls = program("nop");
    assert_eq!(names(&calls), ["getpid", "exit", "getppid"]);
    assert_eq!(calls.unknown, []);
    for held in [
        "mov %rbx, %rdi; call other",
        "push %rbx; call other; pop %rdi",
        "mov %rbx, seed(%rip)",
        "lea 8(%rbx), %rdx",
        "or $1, %bl",
        "push %r12; mov %rbx, %r12; mov %r12, %rdi; call other; pop %r12",
        "mov %rbx, %rcx; call other",
        "cmp $0, %eax; jne out; pop %rbx; ret; out: mov %rbx, %rax; pop %rbx; ret",
    ] {
        let reasons: Vec<Why> = program(held).unknown.iter().map(|site| site.why).collect();
        assert_eq!(reasons, [Why::Caller], "{held}");
    }
}

#[test]
fn an_address_is_followed_through_copies_and_gone_with_its_first_byte() {
    let program = |held: &str| {
        bare(
            &["-fPIE", "-static-pie"],
            &format!(
                r#"BARE L wrap(L n) {{ return call(n); }}
                   __asm__(".globl held\n.type held, @function\n"
                           "held: push %rbx\npush %r12\nlea wrap(%rip), %rbx\nmov $39, %edi\ncall *%rbx\n"
                           "{held}\npop %r12\npop %rbx\nret\n.size held, . - held\n");
                   void held(void);
                   void _start(void) {{ held(); call(60); for (;;); }}"#
            ),
        )
    };
    for (held, expected) in [
        (
            "mov %rbx, %r12; mov $110, %edi; call *%r12",
            &["getpid", "exit", "getppid"][..],
        ),
        (
            "mov %rbx, %r12; xor %ebx, %ebx; again: mov $110, %edi; call *%r12; test %eax, %eax; je again",
            &["getpid", "exit", "getppid"],
        ),
        (
            "mov seed(%rip), %bl; test %bl, %bl; mov %rbx, seed(%rip)",
            &["getpid", "exit"],
        ),
        ("test %bl, %bl; mov %bl, seed(%rip)", &["getpid", "exit"]),
    ] {
        let calls = program(held);
        assert_eq!(names(&calls), expected, "{held}");
        assert_eq!(calls.unknown, [], "{held}");
    }
}

/// `getrandom` of Rust's standard library has the address of `syscall` in a register of arguments, and leaves it there.
#[test]
fn the_kernel_calls_no_address_that_it_gets_for_an_argument() {
    let program = |end: &str| {
        let source = format!(
            r#"__asm__(".globl main\n.type main, @function\n"
                       "main: push %r12\nmov syscall@GOTPCREL(%rip), %r8\nagain: mov $110, %edi\nmov %r8, %r12\ncall *%r8\n"
                       "mov %r12, %r8\ntest %eax, %eax\njs again\nxor %eax, %eax\npop %r12\n{end}\nret\n.size main, . - main\n");"#
        );
        build("gcc", &["-O2"], "c", &source)
    };
    let built = program("nop");
    let calls = with_libraries(&built.path);
    assert_covers(&built.path, &[], &calls);
    assert!(names(&calls).contains(&"getppid"));
    let returned = with_libraries(&program("mov %r8, %rdx").path);
    assert!(!returned.unknown.is_empty(), "the caller gets the address");
}

#[test]
fn jumps_through_tables_are_told_apart_where_the_code_says_which() {
    // What is in %ebx before the second jump reaches no case of the first one.
    let program = |between: &str| {
        bare(
            &["-fPIE", "-static-pie"],
            &format!(
                r#"__asm__(".globl pick\n.type pick, @function\n"
                   "pick: push %rbx\nmov $39, %ebx\nlea one(%rip), %rcx\nmovslq (%rcx,%rdi,4), %rax\n"
                   "add %rcx, %rax\njmp *%rax\n"
                   "one0: mov %ebx, %eax\nsyscall\njmp second\none1: mov %ebx, %eax\nsyscall\n"
                   "second: mov $57, %ebx\nlea two(%rip), %rdx\n{between}\nmovslq (%rdx,%rsi,4), %rax\nadd %rdx, %rax\njmp *%rax\n"
                   "two0: mov $110, %eax\nsyscall\ntwo1: pop %rbx\nret\n.size pick, . - pick\n"
                   ".section .rodata\n.align 4\none: .long one0-one, one1-one\ntwo: .long two0-two, two1-two\n.text\n");
                   void pick(L, L);
                   void _start(void) {{ pick(seed & 1, seed & 1); call(60); for (;;); }}"#
            ),
        )
    };
    let calls = program("mov %rsi, %rax");
    assert_eq!(names(&calls), ["getpid", "exit", "getppid"]);
    assert_eq!(calls.unknown, []);
    // Something leads in between with another table, or changes what the table is found by.
    for between in [
        "mov %rcx, %rdx",
        "test %esi, %esi; js other; lea one(%rip), %rdx; other:",
    ] {
        let calls = program(between);
        assert!(names(&calls).contains(&"fork"), "{between}");
        assert_eq!(calls.unknown, []);
    }
}

/// `other` gets into the way of the second jump of `pick` with its own table, by a jump that only its table shows.
#[test]
fn a_jump_that_a_table_shows_later_joins_what_was_told_apart() {
    let program = |shown: &str| {
        bare(
            &["-fPIE", "-static-pie"],
            &format!(
                r#"__asm__(".globl pick\n.type pick, @function\n"
                   "pick: push %rbx\nmov $39, %ebx\nlea one(%rip), %rcx\nmovslq (%rcx,%rdi,4), %rax\n"
                   "add %rcx, %rax\njmp *%rax\n"
                   "one0: mov %ebx, %eax\nsyscall\njmp second\none1: mov %ebx, %eax\nsyscall\n"
                   "second: mov $39, %ebx\nlea two(%rip), %rdx\ninside: movslq (%rdx,%rsi,4), %rax\nadd %rdx, %rax\njmp *%rax\n"
                   "two0: mov $110, %eax\nsyscall\ntwo1: pop %rbx\nret\n.size pick, . - pick\n"
                   ".globl other\n.type other, @function\n"
                   "other: push %rbx\nmov $57, %ebx\nmov pointer(%rip), %rdx\nlea three(%rip), %r8\nmov %r8, %r9\n"
                   "movslq (%r9,%rdi,4), %rax\nadd %r9, %rax\njmp *%rax\n"
                   "three0: pop %rbx\nret\n.size other, . - other\n"
                   ".section .rodata\n.align 4\none: .long one0-one, one1-one\ntwo: .long two0-two, two1-two\n"
                   "three: .long three0-three, {shown}-three\n"
                   ".section .data.rel.ro, \"aw\"\n.align 8\npointer: .quad one\n.text\n");
                   void pick(L, L); void other(L, L);
                   void _start(void) {{ pick(seed & 1, seed & 1); other(seed & 1, seed & 1); call(60); for (;;); }}"#
            ),
        )
    };
    for (shown, forks) in [("three0", false), ("inside", true)] {
        let calls = program(shown);
        assert_eq!(names(&calls).contains(&"fork"), forks, "{shown}");
        assert_eq!(calls.unknown, [], "{shown}");
    }
}

#[test]
fn a_table_is_as_long_as_the_index_that_was_compared_says() {
    // The tables lie one behind the other; what is in %ebx before the first jump reaches no entry of the second one.
    let program = |check: &str| {
        bare(
            &["-fno-pie", "-no-pie"],
            &format!(
                r#"__asm__(".globl pick\n.type pick, @function\n"
                   "pick: push %rbx\nmov $57, %ebx\n{check}\njmp *one(,%rdi,8)\n"
                   "one0: nop\none1: nop\n"
                   "second: mov $39, %ebx\ncmp $1, %sil\nja out\nmovzx %sil, %eax\njmp *two(,%rax,8)\n"
                   "two0: mov %ebx, %eax\nsyscall\ntwo1: nop\nout: pop %rbx\nret\n.size pick, . - pick\n"
                   ".section .rodata\n.align 8\none: .quad one0, one1\ntwo: .quad two0, two1\n.text\n");
                   void pick(L, L, L);
                   void _start(void) {{ pick(seed & 1, seed & 1, seed); call(60); for (;;); }}"#
            ),
        )
    };
    for check in [
        "cmp $1, %edi; ja second",
        "cmp $1, %rdi; ja second; mov %edi, %edi",
        "mov %edi, %eax; cmp $1, %eax; mov %eax, %ecx; ja second; mov %ecx, %edi",
    ] {
        let calls = program(check);
        assert_eq!(names(&calls), ["getpid", "exit"], "{check}");
        assert_eq!(calls.unknown, [], "{check}");
    }
    for check in [
        "and $1, %edi",
        "cmp $1, %edi; ja second; mov %rdx, %rdi",
        "cmp $1, %edx; ja second",
        "cmp $1, %edi; test %edx, %edx; ja second",
        "cmp $1, %dil; ja second; mov %edi, %edi",
        "test %edx, %edx; js inside; cmp $1, %edi; ja second; inside: nop",
    ] {
        let calls = program(check);
        assert!(names(&calls).contains(&"fork"), "{check}");
        assert_eq!(calls.unknown, [], "{check}");
    }
}

#[test]
fn the_loaders_table_of_symbols_is_no_pointer_to_a_function() {
    let source = r#"
        #include <unistd.h>
        __attribute__((noipa)) long wrap(long number) {
            long result;
            __asm__ volatile("syscall" : "=a"(result) : "a"(number) : "rcx", "r11", "memory");
            return result;
        }
        #ifdef POINTER
        long (*volatile pointer)(long) = wrap;
        int main(void) { return pointer(102) < 0; }
        #else
        int main(void) { return wrap(102) < 0; }
        #endif
    "#;
    let built = build("gcc", &["-O2", "-no-pie", "-rdynamic"], "c", source);
    let calls = with_libraries(&built.path);
    assert_covers(&built.path, &[], &calls);
    let built = build("gcc", &["-O2", "-no-pie", "-rdynamic", "-DPOINTER"], "c", source);
    let reasons: Vec<Why> = with_libraries(&built.path)
        .unknown
        .iter()
        .map(|site| site.why)
        .collect();
    assert_eq!(reasons, [Why::Caller]);
}

#[test]
fn a_name_that_is_looked_up_through_a_pointer_is_not_known() {
    let looker = |body: &str| {
        let arguments = ["-O2", "-shared", "-fPIC", "-nostdlib", "-fno-builtin"];
        let source =
            format!("void *dlsym(void *, const char *);\nvoid *(*volatile sink)(void *, const char *);\n{body}");
        let built = build("gcc", &arguments, "c", &source);
        let summary = summarise(&std::fs::read(&built.path).unwrap()).unwrap();
        (summary.looked_up, summary.looks_up_unknown)
    };
    let known = looker("void *find(void) { return dlsym(0, \"sought\"); }");
    assert_eq!(known, (vec!["sought".to_owned()], false));
    let held = looker(
        r#"__asm__(".globl find\n.type find, @function\nfind: push %rbx\nmov dlsym@GOTPCREL(%rip), %rbx\n"
                   "lea name(%rip), %rsi\ncall *%rbx\nlea name(%rip), %rsi\ncall *%rbx\npop %rbx\nret\n.size find, . - find\n"
                   ".section .rodata\nname: .string \"sought\"\n.text\n");"#,
    );
    assert_eq!(held, (vec!["sought".to_owned()], false));
    assert!(looker("void find(void) { sink = dlsym; }").1);
    assert!(looker("void *(*pointer)(void *, const char *) = dlsym;\nvoid *(**find(void))(void *, const char *) { return &pointer; }").1);
}

#[test]
fn a_function_that_ends_with_a_call_does_not_run_on_into_the_next() {
    let calls = bare(
        &[],
        r#"void ender(void);
           __asm__(".globl stop\n.type stop, @function\nstop: ud2\n.size stop, . - stop\n"
                   ".type ender, @function\nender: call stop\n.size ender, . - ender\n"
                   ".type next, @function\nnext: mov $57, %eax\nsyscall\nret\n.size next, . - next\n");
           void _start(void) { if (seed) ender(); call(60); for (;;); }"#,
    );
    assert_eq!(names(&calls), ["exit"]);
    assert_eq!(calls.unknown, []);
}

/// What is ruled out of a library comes back with the function without which it cannot happen.
#[test]
fn what_only_some_function_asks_for_counts_with_that_function() {
    let source = r#"
        #define _GNU_SOURCE
        #include <fcntl.h>
        #include <pthread.h>
        #include <sched.h>
        #include <spawn.h>
        #include <stdlib.h>
        #include <sys/wait.h>
        #include <unistd.h>
        extern char **environ;
        static void *run(void *argument) { return argument; }
        int main(void) {
            pthread_t thread;
            pthread_attr_t attributes;
            posix_spawnattr_t spawned;
            posix_spawn_file_actions_t actions;
            char name[] = "/tmp/assay-XXXXXX", *arguments[] = {"/bin/true", 0};
            cpu_set_t processors;
            pid_t child;
            int status;
            pthread_attr_init(&attributes);
            posix_spawnattr_init(&spawned);
            posix_spawn_file_actions_init(&actions);
            sched_getaffinity(0, sizeof processors, &processors);
        #ifdef ASKED
            struct sched_param parameters = {0};
            pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED);
            pthread_attr_setschedparam(&attributes, &parameters);
            pthread_attr_setaffinity_np(&attributes, sizeof processors, &processors);
            posix_spawnattr_setflags(&spawned, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSCHEDULER | POSIX_SPAWN_RESETIDS);
            posix_spawn_file_actions_addchdir_np(&actions, "/");
            posix_spawn_file_actions_addfchdir_np(&actions, 5);
            posix_spawn_file_actions_addclosefrom_np(&actions, 6);
            int folder = open(".", 0);
            dup2(folder, 5);
            if (!mkdtemp(name) || rmdir(name)) return 1;
        #else
            int file = mkstemp(name);
            if (file < 0 || unlink(name)) return 1;
            if (system("true")) return 1;
        #endif
            if (pthread_create(&thread, &attributes, run, 0)) return 2;
            pthread_join(thread, 0);
            if (posix_spawn(&child, arguments[0], &actions, &spawned, arguments, environ)) return 3;
            waitpid(child, &status, 0);
            return status;
        }"#;
    const ASKED: [&str; 11] = [
        "chdir",
        "close_range",
        "fchdir",
        "mkdir",
        "sched_getparam",
        "sched_getscheduler",
        "sched_setaffinity",
        "sched_setscheduler",
        "setresgid",
        "setresuid",
        "setsid",
    ];
    for (flags, asked) in [(&["-O2"][..], false), (&["-O2", "-DASKED"], true)] {
        let built = build("gcc", flags, "c", source);
        let calls = with_libraries(&built.path);
        let derived = names(&calls);
        for call in ASKED {
            assert_eq!(derived.contains(&call), asked, "{flags:?}: {call}");
        }
        assert_eq!(calls.unknown, []);
        let made = traced(&built.path, &[]);
        let own: BTreeSet<String> = derived.iter().map(|name| (*name).to_owned()).collect();
        // Of what it starts only the start is its own.
        let missed: Vec<&String> = made
            .difference(&own)
            .filter(|call| asked && ASKED.contains(&call.as_str()))
            .collect();
        assert!(missed.is_empty(), "{missed:?}");
    }
}

#[test]
fn a_small_program_gets_few_calls() {
    let built = build(
        "gcc",
        &["-O2"],
        "c",
        "#include <stdio.h>\nint main(void) { puts(\"x\"); return 0; }",
    );
    let calls = with_libraries(&built.path);
    assert_covers(&built.path, &[], &calls);
    assert!(calls.calls.len() <= 50, "{}", calls.calls.len());
    // That glibc could give the memory of its RPC code back makes no program open a socket.
    assert!(!names(&calls).contains(&"socket"));
    assert_eq!(calls.unresolved, []);
}

/// Fails when the machine's C library or libcrypto was updated: the reviewed files must then be written again for the new
/// build.
#[test]
fn the_reviewed_facts_are_those_of_this_machines_libraries() {
    let facts: toml::Table = toml::from_str(include_str!("../config/syscalls/facts.toml")).unwrap();
    let objects: toml::Table = toml::from_str(include_str!("../config/syscalls/objects.toml")).unwrap();
    let number = |value: &toml::Value| u32::try_from(value.as_integer().unwrap()).unwrap();
    let of = |table: &toml::Table, list: &str, id: &str| -> Vec<toml::Value> {
        let all = table[list].as_array().unwrap().iter();
        all.filter(|entry| entry["build_id"].as_str() == Some(id))
            .cloned()
            .collect()
    };
    for (file, has_cuts, has_objects) in [
        ("/lib/x86_64-linux-gnu/libc.so.6", true, true),
        ("/lib64/ld-linux-x86-64.so.2", true, false),
        ("/lib/x86_64-linux-gnu/libcrypto.so.3", true, false),
        ("/lib/x86_64-linux-gnu/libsystemd.so.0", false, true),
    ] {
        let summary = summarise(&std::fs::read(file).unwrap()).unwrap();
        let id = summary.build_id.clone().unwrap();
        let is_function = |address: &u32| summary.functions.binary_search(address).is_ok();
        let cuts = of(&facts, "cut", &id);
        assert_eq!(
            !cuts.is_empty(),
            has_cuts,
            "{file} {id}: review the cuts in config/syscalls/facts.toml for it"
        );
        for cut in cuts {
            let list = |key: &str| {
                cut.get(key)
                    .and_then(|list| list.as_array())
                    .cloned()
                    .unwrap_or_default()
            };
            let mut functions: Vec<u32> = list("unless").iter().map(number).collect();
            functions.extend(["from", "to"].iter().filter_map(|key| cut.get(*key)).map(number));
            assert!(
                functions.iter().all(is_function),
                "{file}: {cut} names what is no function"
            );
            for site in list("sites").iter().map(number) {
                assert!(
                    summary.sites.iter().any(|known| known.address == site),
                    "{file}: {site:#x} does not enter the kernel"
                );
            }
        }
        // An object counts as a function, which refers to what its pointers point to.
        let listed = of(&objects, "build", &id);
        assert_eq!(
            !listed.is_empty(),
            has_objects,
            "{file} {id}: write config/syscalls/objects.toml for it"
        );
        for object in listed.iter().flat_map(|build| build["objects"].as_array().unwrap()) {
            let index = summary.functions.binary_search(&number(&object[1])).unwrap();
            assert!(
                summary.spans[index] < summary.spans[index + 1],
                "{file}: {object} points to nothing"
            );
        }
    }
}

/// A library and a program that uses one of its two functions.
fn pair() -> (Built, Built, Summary, Summary) {
    let library = build(
        "gcc",
        &["-O2", "-shared", "-fPIC", "-nostdlib", "-Wl,-soname,libpair.so"],
        "c",
        &format!("{BARE}L used(void) {{ return call(39); }}\nL other(void) {{ return call(57); }}"),
    );
    let directory = library.path.parent().unwrap();
    std::fs::copy(&library.path, directory.join("libpair.so")).unwrap();
    let search = format!("-L{}", directory.display());
    let source = format!("{BARE}L used(void);\nvoid _start(void) {{ used(); call(60); for (;;); }}");
    // The library is named after the source, or the linker would leave it out.
    let dir = tempfile::tempdir().unwrap();
    let (input, path) = (dir.path().join("program.c"), dir.path().join("program"));
    std::fs::write(&input, source).unwrap();
    let status = Command::new("gcc")
        .args(["-O2", "-nostdlib", "-fPIE", "-pie", &search, "-o"])
        .arg(&path)
        .arg(&input)
        .arg("-lpair")
        .status()
        .unwrap();
    assert!(status.success());
    let summaries = [&path, &library.path].map(|path| summarise(&std::fs::read(path).unwrap()).unwrap());
    let [program, shared] = summaries;
    (Built { _dir: dir, path }, library, program, shared)
}

#[test]
fn a_library_adds_what_is_used_of_it_and_a_plugin_all() {
    let (_program, _library, program, library) = pair();
    let object = |summary, role| Object {
        path: "file",
        summary,
        role,
    };
    let calls = close(&[object(&program, Role::Program), object(&library, Role::Library)]);
    assert_eq!(names(&calls), ["getpid", "exit"]);
    let path: Vec<usize> = calls.calls[&39].steps.iter().map(|step| step.object).collect();
    assert_eq!((path.first(), path.last()), (Some(&0), Some(&1)));
    let calls = close(&[object(&program, Role::Program), object(&library, Role::Plugin)]);
    assert_eq!(names(&calls), ["getpid", "fork", "exit"]);
    let calls = close(&[object(&program, Role::Program)]);
    assert_eq!(calls.unresolved, [(0, "used".to_owned())], "what is missing is said");
}

/// A name that is looked up comes from somebody in the same process: what else imports such a function gives it none.
#[test]
fn a_lookup_gets_its_names_from_those_that_can_meet_it() {
    let shared = |body: &str| {
        let arguments = ["-O2", "-shared", "-fPIC", "-nostdlib", "-fno-builtin", "-Wl,-e,_start"];
        let built = build("gcc", &arguments, "c", &format!("{BARE}{body}"));
        summarise(&std::fs::read(&built.path).unwrap()).unwrap()
    };
    let looker = shared(
        "void *dlsym(void *, const char *);\nL _start(void) { return 0; }\nvoid *find(const char *name) { return dlsym(0, name); }",
    );
    let finder = "void *find(const char *);\n";
    let silent = shared(&format!("{finder}void _start(void) {{ find(0); call(60); for (;;); }}"));
    let speaking = shared(&format!(
        "{finder}void _start(void) {{ find(\"sought\"); call(60); for (;;); }}"
    ));
    let library = shared(
        "L _start(void) { return 0; }\nvoid *dlsym(void *a, const char *b) { return 0; }\nL sought(void) { return call(39); }",
    );
    let object = |summary, role| Object {
        path: "file",
        summary,
        role,
    };
    let objects = [
        object(&silent, Role::Program),
        object(&speaking, Role::Program),
        object(&looker, Role::Library),
        object(&library, Role::Library),
    ];
    let derived = |processes: [&[usize]; 2]| {
        let processes = processes.map(|process| -> Order { process.iter().map(|index| vec![*index]).collect() });
        names(&close_all(&objects, &processes, &[]))
    };
    assert_eq!(derived([&[0, 2, 3], &[1, 3]]), ["exit"]);
    assert_eq!(derived([&[0, 2, 3], &[1, 2, 3]]), ["getpid", "exit"]);
}

/// What a reviewer said of a file decides whose strings are names: its own, or those of the files that call it.
#[test]
fn a_lookup_that_is_known_takes_its_names_from_where_the_fact_says() {
    let shared = |body: &str| {
        let arguments = ["-O2", "-shared", "-fPIC", "-nostdlib", "-fno-builtin", "-Wl,-e,_start"];
        let built = build("gcc", &arguments, "c", &format!("{BARE}{body}"));
        summarise(&std::fs::read(&built.path).unwrap()).unwrap()
    };
    let caller = shared("void *find(const char *);\nvoid _start(void) { find(\"asked\"); call(60); for (;;); }");
    let library = shared(
        "L _start(void) { return 0; }\nvoid *dlsym(void *a, const char *b) { return 0; }\n
         L asked(void) { return call(39); }\nL own(void) { return call(110); }",
    );
    let derived = |known: &str| {
        let looker = shared(&format!(
            "void *dlsym(void *, const char *);\nL _start(void) {{ return 0; }}\nvoid {known}(void) {{}}\n
             const char *volatile name = \"own\";\n
             void *find(const char *asked) {{ return dlsym(0, asked ? asked : name); }}"
        ));
        let files = [
            (&caller, Role::Program),
            (&looker, Role::Library),
            (&library, Role::Library),
        ];
        let objects = files.map(|(summary, role)| Object {
            path: "file",
            summary,
            role,
        });
        names(&close(&objects))
    };
    assert_eq!(derived("unheard_of"), ["getpid", "exit", "getppid"]);
    assert_eq!(derived("__sanitizer_set_report_fd"), ["exit", "getppid"]);
    assert_eq!(derived("LLVMSearchForAddressOfSymbol"), ["getpid", "exit"]);
    assert_eq!(derived("hwloc_topology_init"), ["exit"]);
}

#[test]
fn a_caller_that_cannot_be_seen_is_named() {
    let calls = bare(
        &[],
        "BARE L wrap(L n) { return call(n); }
         BARE void plain(void) { wrap(39); }
         BARE void taker(void) { L (*volatile wrapped)(L) = wrap; wrapped(seed); }
         void _start(void) { plain(); taker(); call(60); for (;;); }",
    );
    assert_eq!(names(&calls), ["getpid", "exit"]);
    let [unknown] = &calls.unknown[..] else {
        panic!("{:?}", calls.unknown)
    };
    assert_eq!(unknown.why, Why::Caller);
    let way: Vec<&str> = unknown.path.iter().map(|step| step.function.as_str()).collect();
    assert_eq!(way, ["_start", "taker", "wrap"]);
}

#[test]
fn adding_an_object_never_removes_a_call() {
    let (_program, _library, program, library) = pair();
    let machine = ["libc.so.6", "libz.so.1", "libm.so.6", "libgcc_s.so.1"]
        .map(|name| Path::new("/lib/x86_64-linux-gnu").join(name))
        .map(|path| summarise(&std::fs::read(path).unwrap()).unwrap());
    let mut all = vec![&program, &library];
    all.extend(&machine);
    for role in [Role::Library, Role::Plugin] {
        let mut before = BTreeSet::new();
        for count in 1..=all.len() {
            let objects: Vec<Object<'_>> = all[..count]
                .iter()
                .enumerate()
                .map(|(index, summary)| Object {
                    path: "file",
                    summary,
                    role: if index == 0 { Role::Program } else { role },
                })
                .collect();
            let calls: BTreeSet<u32> = close(&objects).calls.into_keys().collect();
            assert!(before.is_subset(&calls), "{role:?} {count}: {before:?} {calls:?}");
            before = calls;
        }
    }
}

/// A 64-bit Arm program of a few instructions.
fn arm(code: &[u32]) -> Vec<u8> {
    let code: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    program(183, &code)
}

/// A program: headers, one segment, code, which is entered at its beginning.
fn program(machine: u16, code: &[u8]) -> Vec<u8> {
    let size = 0x78 + code.len() as u64;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend([2u16, machine].iter().flat_map(|half| half.to_le_bytes()));
    file.extend(1u32.to_le_bytes());
    file.extend([0x40_0078u64, 0x40, 0].iter().flat_map(|word| word.to_le_bytes()));
    file.extend(0u32.to_le_bytes());
    file.extend([64u16, 56, 1, 64, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    file.extend([1u32, 5].iter().flat_map(|word| word.to_le_bytes()));
    file.extend(
        [0u64, 0x40_0000, 0x40_0000, size, size, 0x1000]
            .iter()
            .flat_map(|word| word.to_le_bytes()),
    );
    file.extend(code);
    file
}

#[test]
fn arm_programs_are_understood_as_well() {
    let summary = summarise(&arm(&[
        0xd280_0ac1, // mov x1, #86
        0x9400_0005, // bl wrapper
        0xd280_0ba8, // mov x8, #93
        0xd400_0001, // svc #0
        0xd280_0568, // mov x8, #43, never reached
        0xd65f_03c0, // ret
        0xaa01_03e8, // wrapper: mov x8, x1
        0xd100_0908, // sub x8, x8, #2
        0xd400_0001, // svc #0
        0xd65f_03c0, // ret
    ]))
    .unwrap();
    assert_eq!(summary.machine, Machine::Aarch64);
    let calls = close(&[Object {
        path: "program",
        summary: &summary,
        role: Role::Program,
    }]);
    let own = calls.calls.iter().filter(|(_, path)| !path.steps.is_empty());
    let names: Vec<_> = own.map(|(number, _)| name(Machine::Aarch64, *number)).collect();
    assert_eq!(names, [Some("sync_file_range"), Some("exit")]);
    assert_eq!(calls.unknown, []);
}

/// Code made to cost more than it looks: each kind ends at a limit that counts what has to be done, never at a clock, so
/// that the same file gets the same answer everywhere.
#[test]
fn code_that_costs_too_much_ends_at_a_limit_with_a_name() {
    // Calls of the next instruction, addresses of instructions, entries into the kernel.
    let refused = [
        ([0xe8, 0, 0, 0, 0].repeat((6 << 20) + 2), "references"),
        (
            [0x48, 0x8d, 0x05, 0xf9, 0xff, 0xff, 0xff].repeat((1 << 19) + 2),
            "functions",
        ),
        ([0x0f, 0x05].repeat((1 << 14) + 1), "places that enter the kernel"),
    ];
    for (code, limit) in refused {
        let error = summarise(&program(62, &code)).unwrap_err().to_string();
        assert!(error.contains(limit), "{limit}: {error}");
    }
}

#[test]
fn a_number_that_too_many_ways_lead_to_is_not_known() {
    // A million jumps to the one instruction behind them.
    const JUMPS: i32 = 1 << 20;
    let mut code: Vec<u8> = Vec::new();
    for jump in 0..JUMPS {
        code.extend([0x0f, 0x84]);
        code.extend(((JUMPS - jump - 1) * 6).to_le_bytes());
    }
    code.extend([0x0f, 0x05, 0xc3]);
    let summary = summarise(&program(62, &code)).unwrap();
    assert_eq!(summary.sites.len(), 1);
    assert_eq!(summary.sites[0].slice.unknown, [(0, Why::TooComplex)]);
    let calls = close(&[Object {
        path: "program",
        summary: &summary,
        role: Role::Program,
    }]);
    assert_eq!(calls.unknown.len(), 1, "the calls are not said to be all");
}

/// A large interpreter is one function with a table and thousands of jumps through it.
#[test]
fn jumps_through_one_table_are_followed_at_the_cost_of_one() {
    let source = r#"__asm__(
        ".globl _start\n .type _start, @function\n"
        "_start: mov $39, %eax\n first: lea table(%rip), %rdx\n"
        "jumps: .rept 2600\n add %rcx, %rdx\n jmp *%rdx\n .endr\n"
        "last: syscall\n ud2\n .size _start, . - _start\n"
        ".section .rodata\n .balign 4\n table:\n"
        ".rept 2600\n .long jumps - table + (. - table) / 4 * 5\n .endr\n .long last - table\n");"#;
    let built = build("gcc", &["-nostdlib", "-static-pie"], "c", source);
    let summary = summarise(&std::fs::read(&built.path).unwrap()).unwrap();
    let [site] = &summary.sites[..] else {
        panic!("{:?}", summary.sites)
    };
    let numbers: BTreeSet<u32> = site.slice.numbers.iter().map(|(number, _)| *number).collect();
    assert_eq!((numbers, &site.slice.unknown[..]), (BTreeSet::from([39]), &[][..]));
}

fn bounded(bytes: &[u8]) -> Duration {
    let start = Instant::now();
    let _ = summarise(bytes);
    start.elapsed()
}

#[test]
fn a_file_that_ends_early_is_an_error_or_a_bounded_result() {
    let file = std::fs::read("/lib64/ld-linux-x86-64.so.2").unwrap();
    for at in (0..file.len()).step_by(file.len() / 97) {
        assert!(bounded(&file[..at]) < Duration::from_secs(20), "{at}");
    }
    assert!(summarise(b"").is_err());
    assert!(summarise(&file[..64]).is_err());
}

#[test]
fn a_file_that_claims_what_it_does_not_have_is_refused() {
    let mut file = arm(&[0xd400_0001]);
    file[56] = 0xff; // program headers
    assert!(summarise(&file).unwrap_err().to_string().contains("program headers"));
    let mut file = arm(&[0xd400_0001]);
    file[0x60..0x70].fill(0xff);
    assert!(summarise(&file).is_err());
    assert!(
        summarise(b"#!/bin/sh\n")
            .unwrap_err()
            .to_string()
            .contains("not an ELF")
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_never_panic(changes in prop::collection::vec((0usize..240_000, any::<u8>()), 1..64), headers in prop::collection::vec((0usize..2048, any::<u8>()), 0..4)) {
        let mut file = std::fs::read("/lib64/ld-linux-x86-64.so.2").unwrap();
        for (at, value) in changes.into_iter().chain(headers) {
            let at = at % file.len();
            file[at] = value;
        }
        prop_assert!(bounded(&file) < Duration::from_secs(20));
    }

    #[test]
    fn damaged_summaries_are_refused_or_whole(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let summary = summarise(&arm(&[0xd280_0ba8, 0xd400_0001, 0xd65f_03c0])).unwrap();
        let mut kept = summary.encode().unwrap();
        for (at, value) in changes {
            let at = at.index(kept.len());
            kept[at] = value;
        }
        if let Ok(summary) = Summary::decode(&kept) {
            let _calls = close(&[Object { path: "file", summary: &summary, role: Role::Plugin }]);
        }
    }
}
