"""One module for each thing that is measured. Each gives ways of doing it, with runs for every round."""
