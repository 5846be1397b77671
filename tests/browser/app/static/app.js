const response = await fetch('/echo?from=the+page')
document.querySelector('#answer').textContent = (await response.json()).target
document.body.dataset.ready = 'yes'
