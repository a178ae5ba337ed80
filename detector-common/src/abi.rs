//! Structs that the kernel and the daemon share byte by byte.

/// Version of every struct and constant that pinned maps hold. A daemon adopts pinned maps of its own version only.
///
/// Raise it with every change of a struct declared by [`abi_struct!`](crate::abi_struct), of a reason's or counter's
/// number, of the kind of a map, or of the hash.
pub const ABI_VERSION: u32 = 7;

/// Declares a struct of the kernel interface: `repr(C)`, of exactly the stated size, without padding, plain data for
/// aya where the feature `user` is on.
///
/// Padding would not be initialised and the verifier refuses to copy it; a size that is stated shows a change of the
/// interface in review.
#[macro_export]
macro_rules! abi_struct {
    (
        $(#[$meta:meta])*
        pub struct $name:ident: $size:literal {
            $( $(#[$field_meta:meta])* pub $field:ident: $type:ty, )*
        }
    ) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            $( $(#[$field_meta])* pub $field: $type, )*
        }

        const _: () = assert!(size_of::<$name>() == $size, "the size of a kernel struct differs from the stated one");
        const _: () = assert!(0 $( + size_of::<$type>() )* == $size, "a kernel struct has padding");

        // SAFETY: `repr(C)` without padding, of fields that are themselves plain data: every bit pattern is a value.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $name {}
    };
}
