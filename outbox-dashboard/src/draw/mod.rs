//! Drawings in SVG: pure functions from what is known to a picture. Colours and fonts are the style
//! sheet's, by class, as the page allows no inline style.

pub(crate) mod lanes;
pub(crate) mod chart;
pub(crate) mod saga;
