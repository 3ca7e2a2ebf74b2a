//! What both guest programs do: modules, power, files.
