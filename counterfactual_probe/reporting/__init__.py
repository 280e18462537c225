"""Reports: a study of several layers, its figures and sentences, as HTML pages."""
