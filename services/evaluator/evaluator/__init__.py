"""EvaluationService: generate, measure, compare, decide."""
