"""Model cards: revisions of a document for each version, in the format of SageMaker's model cards, validated and rendered."""
