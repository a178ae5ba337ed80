//! Builds the eBPF object, so that a plain `cargo build` makes a complete binary.

fn main() -> anyhow::Result<()> {
    ebpf_build::build("detector-ebpf", "detector-ebpf")
}
