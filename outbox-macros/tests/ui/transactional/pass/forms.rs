//! Every form of the attribute, each in a module of its own: one program, for each links the whole of SeaORM.

#[path = "../support.rs"]
mod support;

#[path = "../forms/async_trait.rs"]
mod async_trait;
#[path = "../forms/boxed.rs"]
mod boxed;
#[path = "../forms/crate_path.rs"]
mod crate_path;
#[path = "../forms/emitting.rs"]
mod emitting;
#[path = "../forms/fields.rs"]
mod fields;
#[path = "../forms/methods.rs"]
mod methods;
#[path = "../forms/other_attributes.rs"]
mod other_attributes;
#[path = "../forms/plain.rs"]
mod plain;
#[path = "../forms/propagation.rs"]
mod propagation;
#[path = "../forms/shapes.rs"]
mod shapes;
#[path = "../forms/strict_lints.rs"]
mod strict_lints;
#[path = "../forms/traits.rs"]
mod traits;

fn main() {
    async_trait::main();
    boxed::main();
    crate_path::main();
    emitting::main();
    fields::main();
    methods::main();
    other_attributes::main();
    plain::main();
    propagation::main();
    shapes::main();
    strict_lints::main();
    traits::main();
}
