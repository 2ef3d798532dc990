"""From what a person pastes to a declaration: addresses recognised, models looked at, files written with care."""
