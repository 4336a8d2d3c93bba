//! One poll decided: stories about the differ and the planner, which are plain functions over values.

mod alerts;
mod steps;
mod world;
