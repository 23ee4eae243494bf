//! Assay proves which image a container is started from, verifies its signatures from a local cache and only
//! then lets the OCI runtime start it.
//!
//! The rooms, in the order in which data flows; a module may use those above it, never those below:
//!
//! - [`digest`]: content digests, the only way a digest becomes a path.
//! - [`store`]: directories and files of Assay's own state: owner and mode checks, bounded reads, atomic writes.
//! - [`diagnostic`]: what is wrong with a file that an administrator wrote, where, and what to do; strict TOML.
//! - [`config`]: the file `/etc/assay/config.toml`.
//! - [`oci`]: manifests, image configurations, chain IDs, image layouts, references, registries.
//! - [`trust`]: keys with their use, status and validity window.
//! - [`attest`]: in-toto statements and simple-signing payloads.
//! - [`verify`]: one file per signature carrier: bytes, digest and keys in, facts out.
//! - [`evidence`]: the local cache of signatures and attestations: pull, import, export, discovery, gc.
//! - [`policy`]: the administrator's rules: schema, diagnostics, activation, matching, evaluation.
//! - [`grant`]: break-glass: what an administrator's key opens for a while although the policy refuses it.
//! - [`tree`]: the files of an image: names, links resolved inside the image, bounded reads.
//! - [`sbom`]: software bills of materials: SPDX, CycloneDX, syft; packages by their package URLs, files by hash.
//! - [`packages`]: the package databases of an image: which package owns which file, and how it stands
//!   against an SBOM.
//! - [`closure`]: which files of an image a container needs, and why.
//! - [`syscalls`]: which system calls ELF files can make, with a path for each.
//! - [`seccomp`]: profiles: what they let through, their intersection, containerd's default, calls kept together.
//! - [`identity`]: what a container really is, according to containerd and to the bytes that will be mounted.
//! - [`view`]: a keep set and the layers of a snapshot in, a layer that shows only what is kept out; mounting it.
//! - [`admission`]: all of the above put together: request in, [`admission::Decision`] out.
//! - [`fleet`]: policy and trust of many nodes as one signed artifact: packing it, taking it from a registry or a file.
//! - [`runtime`]: the command line of the OCI runtime (runc, crun).
//! - [`shim`]: the containerd runtime v2 shim.
//! - [`agent`]: the optional daemon: running containers are judged again.
//! - [`cli`]: one file per `assay` command.

pub mod admission;
pub mod agent;
pub mod attest;
pub mod cli;
pub mod closure;
pub mod config;
pub mod diagnostic;
pub mod digest;
pub mod evidence;
pub mod fleet;
pub mod grant;
pub mod identity;
pub mod oci;
pub mod packages;
pub mod policy;
pub mod runtime;
pub mod sbom;
pub mod seccomp;
pub mod shim;
pub mod store;
pub mod syscalls;
pub mod tree;
pub mod trust;
pub mod verify;
pub mod view;
