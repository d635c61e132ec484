//! Pure HTTP rules: ranges, conditionals, Cache-Control, Vary, CMCD.
