"""Translation over HTTP: requests are batched (`batcher`), answered as JSON (`application`), shown on a page."""
